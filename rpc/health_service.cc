#include "rpc/health_service.h"

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace switchyard::rpc {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// How often a watcher looks whether its client is still there: a synchronous
// call is told of that by nobody.
constexpr absl::Duration kLookForClient = absl::Milliseconds(100);

}  // namespace

void HealthService::SetServices(const std::vector<std::string>& names) {
  MutexLock lock(&mutex_);
  services_ = std::set<std::string>(names.begin(), names.end());
  ++version_;
  changed_.SignalAll();
}

void HealthService::SetServing(bool serving) {
  MutexLock lock(&mutex_);
  if (closed_ || serving_ == serving) return;
  serving_ = serving;
  ++version_;
  changed_.SignalAll();
}

void HealthService::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
  if (serving_) ++version_;
  serving_ = false;
  changed_.SignalAll();
}

grpc::Status HealthService::Check(grpc::ServerContext* /*context*/,
                                  const HealthCheckRequest* request,
                                  HealthCheckResponse* response) {
  MutexLock lock(&mutex_);
  if (!Known(request->service())) {
    return {grpc::StatusCode::NOT_FOUND,
            "no service " + request->service() + " here"};
  }
  response->set_status(serving_ ? HealthCheckResponse::SERVING
                                : HealthCheckResponse::NOT_SERVING);
  return grpc::Status::OK;
}

grpc::Status HealthService::Watch(
    grpc::ServerContext* context, const HealthCheckRequest* request,
    grpc::ServerWriter<HealthCheckResponse>* writer) {
  mutex_.Lock();
  if (watchers_ == kMaxWatchers) {
    mutex_.Unlock();
    return {grpc::StatusCode::RESOURCE_EXHAUSTED,
            "too many watch the health of this server; ask with Check"};
  }
  ++watchers_;
  int64_t seen = -1;
  while (true) {
    if (seen != version_) {
      seen = version_;
      HealthCheckResponse response;
      response.set_status(!Known(request->service())
                              ? HealthCheckResponse::SERVICE_UNKNOWN
                          : serving_ ? HealthCheckResponse::SERVING
                                     : HealthCheckResponse::NOT_SERVING);
      mutex_.Unlock();
      const bool sent = writer->Write(response);
      mutex_.Lock();
      if (!sent) break;
      continue;
    }
    if (closed_ || context->IsCancelled()) break;
    changed_.WaitUntil(&mutex_, absl::Now() + kLookForClient);
  }
  --watchers_;
  const bool closed = closed_;
  mutex_.Unlock();
  return closed ? grpc::Status(grpc::StatusCode::UNAVAILABLE,
                               "this server shuts down")
                : grpc::Status::CANCELLED;
}

}  // namespace switchyard::rpc
