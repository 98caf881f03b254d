#include "rpc/server.h"

#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "grpc/grpc.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/impl/server_builder_plugin.h"
#include "grpcpp/impl/server_initializer.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "rpc/address.h"
#include "rpc/channel.h"
#include "rpc/health_service.h"
#include "rpc/settings.h"
#include "rpc/tls.h"

namespace switchyard::rpc {
namespace {

// Learns the full names of the services, which grpc::Service keeps to itself.
class ServiceNamesPlugin final : public grpc::ServerBuilderPlugin {
 public:
  explicit ServiceNamesPlugin(std::vector<std::string>* names)
      : names_(names) {}
  std::string name() override { return "switchyard_service_names"; }
  void InitServer(grpc::ServerInitializer* /*server*/) override {}
  void Finish(grpc::ServerInitializer* server) override {
    *names_ = *server->GetServiceList();
  }
  void ChangeArguments(const std::string& /*name*/, void* /*value*/) override {}

 private:
  std::vector<std::string>* const names_;
};

class ServiceNamesOption final : public grpc::ServerBuilderOption {
 public:
  explicit ServiceNamesOption(std::vector<std::string>* names)
      : names_(names) {}
  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>*
                         plugins) override {
    plugins->push_back(std::make_unique<ServiceNamesPlugin>(names_));
  }

 private:
  std::vector<std::string>* const names_;
};

void ApplySettings(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder->SetMaxSendMessageSize(kMaxMessageBytes);
  // Else a second server on the same port starts, and gets half of the calls.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);

  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              kKeepaliveTimeoutMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      kMinPingIntervalMs);

  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kMaxFrameBytes);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES,
                              kStreamWindowBytes);
  builder->AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, kReadChunkBytes);
  builder->AddChannelArgument(GRPC_ARG_OPTIMIZATION_TARGET, "latency");

  // Only health and reflection are synchronous; they need no thread for each
  // CPU.
  builder->SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
}

class GrpcServer final : public Server {
 public:
  ~GrpcServer() override {
    if (server_ != nullptr) Shutdown(absl::ZeroDuration());
    // A second Shutdown of a queue changes nothing.
    ShutDownQueues();
  }

  absl::Status Listen(const std::string& host, int port,
                      absl::Span<grpc::Service* const> services,
                      int num_queues) {
    const std::string address = ListeningAddress(host, port);
    // gRPC itself would take a path away from whoever listens there.
    if (IsUnixSocket(host)) SY_RETURN_IF_ERROR(PrepareUnixSocket(host));
    grpc::ServerBuilder builder;
    ApplySettings(&builder);
    builder.SetOption(std::make_unique<ServiceNamesOption>(&service_names_));
    builder.AddListeningPort(address, ServerCredentialsFor(host), &port_);
    builder.RegisterService(&health_);
    for (grpc::Service* const service : services) {
      builder.RegisterService(service);
    }
    for (int i = 0; i < num_queues; ++i) {
      queues_.push_back(builder.AddCompletionQueue());
    }
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) {
      return absl::UnavailableError(absl::StrCat(
          "cannot listen for gRPC on ", address,
          ": the port is in use or the address isn't this machine's; choose "
          "another, or port 0 for any free one"));
    }
    if (IsUnixSocket(host)) SY_RETURN_IF_ERROR(RestrictUnixSocket(host));
    health_.SetServices(service_names_);
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  grpc::ServerCompletionQueue* completion_queue(int index) override {
    return queues_[static_cast<size_t>(index)].get();
  }

  void SetServing(bool serving) override { health_.SetServing(serving); }

  void Shutdown(absl::Duration grace) override {
    MutexLock lock(&shutdown_mutex_);  // a second caller waits for the first
    if (shut_down_) return;
    shut_down_ = true;
    health_.Close();
    server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  }

 private:
  void ShutDownQueues() {
    for (const auto& queue : queues_) queue->Shutdown();
  }

  int port_ = 0;
  HealthService health_;
  std::vector<std::string> service_names_;
  // Queues outlive the server.
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues_;
  std::unique_ptr<grpc::Server> server_;
  Mutex shutdown_mutex_;
  bool shut_down_ ABSL_GUARDED_BY(shutdown_mutex_) = false;
};

// For the whole process, and idempotent.
void EnableReflection() {
  static const bool kDone = [] {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  static_cast<void>(kDone);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(
    const std::string& host, int port,
    absl::Span<grpc::Service* const> services, int num_queues) {
  EnableReflection();
  auto server = std::make_unique<GrpcServer>();
  const absl::Status status = server->Listen(host, port, services, num_queues);
  if (!status.ok()) return status;
  return server;
}

}  // namespace switchyard::rpc
