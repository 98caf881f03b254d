// grpc.health.v1.Health: one state for the server and all of its services.
//
// Not gRPC's own. That one is made with callbacks, for which gRPC 1.51 keeps
// two threads or more in its poller, in every process that has it. They find
// most of the events that another thread waits for, and have to hand them over:
// a thread's waking, 50 us and more, each way of a dispatch, and a processor
// that was to compute. This one has no threads until somebody asks.

#ifndef SWITCHYARD_RPC_HEALTH_SERVICE_H_
#define SWITCHYARD_RPC_HEALTH_SERVICE_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "proto/health.grpc.pb.h"

namespace switchyard::rpc {

// Starts as NOT_SERVING. Thread-safe.
class HealthService final : public grpc::health::v1::Health::Service {
 public:
  // A watcher keeps a thread of the server; more are RESOURCE_EXHAUSTED.
  static constexpr int kMaxWatchers = 64;

  // The services that may be asked about besides "", the server.
  void SetServices(const std::vector<std::string>& names)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Watchers hear of changes only.
  void SetServing(bool serving) ABSL_LOCKS_EXCLUDED(mutex_);

  // NOT_SERVING for good: watchers are told so, and their calls end.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

  grpc::Status Check(grpc::ServerContext* context,
                     const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  grpc::Status Watch(grpc::ServerContext* context,
                     const grpc::health::v1::HealthCheckRequest* request,
                     grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>*
                         writer) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  bool Known(const std::string& service) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return service.empty() || services_.contains(service);
  }

  Mutex mutex_;
  CondVar changed_;
  std::set<std::string> services_ ABSL_GUARDED_BY(mutex_);
  bool serving_ ABSL_GUARDED_BY(mutex_) = false;
  // Counts changes, so that a watcher misses none that came and went.
  int64_t version_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int watchers_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_HEALTH_SERVICE_H_
