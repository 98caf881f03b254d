#include "attention_worker/server.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "attention_worker/client/expert_io.h"
#include "attention_worker/client/grpc_expert_client.h"
#include "attention_worker/client/member_clients.h"
#include "attention_worker/service/generation_service.h"
#include "attention_worker/service/session_service.h"
#include "attention_worker/worker.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/version.h"
#include "fabric/client/membership_client.h"
#include "fabric/membership/member.h"
#include "metrics/registry.h"
#include "metrics/series_lease.h"
#include "model/weight_values.h"
#include "rpc/address.h"
#include "rpc/queue_poll.h"
#include "rpc/server.h"
#include "tracing/client/otlp_exporter.h"

namespace switchyard::attention_worker {
namespace {

// How often it is seen whether every expert has a holder.
constexpr absl::Duration kHealthPeriod = absl::Milliseconds(100);
// A small frame's way there and back in a local network, twice.
constexpr absl::Duration kRemoteSpin = absl::Microseconds(200);
// How long /metrics tells of an expert worker that is gone: several times what
// an alert waits.
constexpr absl::Duration kForgetWorkersAfter = absl::Minutes(30);
// For replies on their way, once the engine has ended every request.
constexpr absl::Duration kReplyGrace = absl::Seconds(5);

absl::StatusOr<std::vector<std::string>> ParseAddresses(
    const std::string& list) {
  std::vector<std::string> addresses;
  if (list.empty()) return addresses;
  for (const absl::string_view part : absl::StrSplit(list, ',')) {
    std::string address(absl::StripAsciiWhitespace(part));
    const absl::Status valid = rpc::CheckAddress(address);
    if (!valid.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("expert_workers \"", list, "\": ", valid.message()));
    }
    for (const std::string& earlier : addresses) {
      if (earlier == address) {
        return absl::InvalidArgumentError(
            absl::StrCat("expert_workers names ", address, " twice"));
      }
    }
    addresses.push_back(std::move(address));
  }
  return addresses;
}

absl::Duration SpinFor(absl::Duration wanted,
                       const std::vector<std::string>& addresses) {
  if (wanted >= absl::ZeroDuration()) return wanted;
  const bool share_cpus =
      std::any_of(addresses.begin(), addresses.end(), rpc::IsLocal);
  return share_cpus ? absl::ZeroDuration() : kRemoteSpin;
}

GrpcExpertClientOptions ClientOptions(const model::Checkpoint& checkpoint,
                                      const std::string& instance_id,
                                      metrics::Registry* registry,
                                      ExpertTrafficMeter* traffic,
                                      std::shared_ptr<ExpertIo> io) {
  GrpcExpertClientOptions options;
  options.model_fingerprint = checkpoint.fingerprint();
  options.num_layers = checkpoint.num_expert_layers();
  options.num_experts = checkpoint.config().num_experts;
  options.hidden_size = checkpoint.config().hidden_size;
  options.expert_dtype = checkpoint.expert_dtype();
  options.instance_id = instance_id;
  options.registry = registry;
  options.traffic = traffic;
  options.io = std::move(io);
  return options;
}

AttentionWorker::MakeExpertClients ExpertClientsAt(
    std::vector<std::string> addresses, std::shared_ptr<ExpertIo> io,
    metrics::Registry* registry, ExpertTrafficMeter* traffic) {
  return
      [addresses = std::move(addresses), io = std::move(io), registry, traffic](
          const model::Checkpoint& checkpoint, const std::string& instance_id)
          -> absl::StatusOr<AttentionWorker::ExpertClients> {
        AttentionWorker::ExpertClients made;
        for (const std::string& address : addresses) {
          GrpcExpertClientOptions options =
              ClientOptions(checkpoint, instance_id, registry, traffic, io);
          options.address = address;
          SY_ASSIGN_OR_RETURN(std::unique_ptr<ExpertClient> client,
                              NewGrpcExpertClient(std::move(options)));
          made.clients.push_back(std::move(client));
        }
        made.pump = io;
        return made;
      };
}

absl::Status CheckNumbers(const ServerOptions& options) {
  if (options.port < 0 || options.port > 65535 ||
      options.metrics_port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("ports are 0 to 65535, not ",
                                                   options.port, " and ",
                                                   options.metrics_port));
  }
  if (options.expert_fallback != "wait" && options.expert_fallback != "local") {
    return absl::InvalidArgumentError(absl::StrCat("expert_fallback is \"",
                                                   options.expert_fallback,
                                                   "\"; it is wait or local"));
  }
  if (options.spin > rpc::kMaxSpin) {
    return absl::InvalidArgumentError(absl::StrCat(
        "spinning is for at most ", absl::FormatDuration(rpc::kMaxSpin),
        ", not ", absl::FormatDuration(options.spin)));
  }
  return absl::OkStatus();
}

class AttentionServer final : public Server {
 public:
  explicit AttentionServer(ServerOptions options)
      : options_(std::move(options)), registry_(metrics::Registry::Create()) {
    metrics::AddProcessMetrics(registry_.get(), "attention_worker");
    metrics::ForgetUnleasedSeries(registry_.get(), Clock::Real(),
                                  kForgetWorkersAfter);
  }
  ~AttentionServer() override { Shutdown(); }

  absl::Status Start();

  int port() const override { return port_; }
  int metrics_port() const override { return metrics_port_; }
  WorkerInfo info() const override { return worker_->info(); }
  absl::Status WaitUntilLoaded(absl::Time deadline) const override {
    return worker_->WaitUntilLoaded(deadline);
  }
  void Shutdown() override ABSL_LOCKS_EXCLUDED(shutdown_mutex_, mutex_);

 private:
  AttentionWorkerOptions WorkerOptions();
  // Where experts come from: fills in the options' clients.
  absl::Status ChooseExperts(AttentionWorker::Options* worker);
  // Joins the routers, and follows them, if that is wanted.
  absl::Status Join(const model::Checkpoint& checkpoint,
                    const std::string& instance_id) ABSL_LOCKS_EXCLUDED(mutex_);
  void TellState(fabric::MemberState state) ABSL_LOCKS_EXCLUDED(mutex_);
  // The health thread.
  void WatchHealth() ABSL_LOCKS_EXCLUDED(mutex_);
  metrics::MetricsServer::Readiness Readiness() const;
  // Null: nobody asks.
  ExpertTrafficMeter* Traffic() {
    return options_.otlp_traces_endpoint.empty() ? nullptr : &traffic_;
  }

  const ServerOptions options_;
  const std::unique_ptr<metrics::Registry> registry_;
  // Set by Start(): known to the end, also while Shutdown() takes the servers
  // away.
  int port_ = -1;
  int metrics_port_ = -1;
  std::unique_ptr<tracing::SpanSink> spans_;  // null: no traces
  ExpertTrafficMeter traffic_;
  std::shared_ptr<ExpertIo> io_;  // of the expert workers; null: none
  bool follows_ = false;          // the expert workers are those that join
  std::unique_ptr<AttentionWorker> worker_;
  std::unique_ptr<GenerationService> service_;
  std::unique_ptr<SessionService> sessions_;
  std::unique_ptr<rpc::Server> grpc_;
  std::unique_ptr<metrics::MetricsServer> metrics_server_;

  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  fabric::Member member_ ABSL_GUARDED_BY(mutex_);
  // Made by the loading thread, unless Shutdown came first. Null: no routers.
  std::unique_ptr<fabric::MembershipClient> membership_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<MemberClients> member_clients_;
  std::atomic<MemberClients*> for_views_{nullptr};  // of the membership
  std::thread health_;

  Mutex shutdown_mutex_;  // a second caller of Shutdown waits for the first
  bool shut_down_ ABSL_GUARDED_BY(shutdown_mutex_) = false;
};

absl::Status AttentionServer::Start() {
  SY_RETURN_IF_ERROR(CheckNumbers(options_));
  AttentionWorkerOptions worker = WorkerOptions();
  SY_RETURN_IF_ERROR(ChooseExperts(&worker));
  SY_ASSIGN_OR_RETURN(worker_, AttentionWorker::Create(std::move(worker)));
  if (!options_.otlp_traces_endpoint.empty()) {
    SY_ASSIGN_OR_RETURN(
        spans_,
        tracing::NewOtlpExporter({.endpoint = options_.otlp_traces_endpoint,
                                  .service_name = "switchyard-attention-worker",
                                  .instance_id = worker_->info().instance_id,
                                  .registry = registry_.get()}));
  }
  service_ = std::make_unique<GenerationService>(
      GenerationService::Options{.backend = worker_.get(),
                                 .max_request_time = options_.max_request_time,
                                 .spans = spans_.get(),
                                 .experts = Traffic()});
  sessions_ = std::make_unique<SessionService>(
      SessionService::Options{.backend = worker_.get()});
  grpc::Service* const services[] = {service_.get(), sessions_.get()};
  SY_ASSIGN_OR_RETURN(
      grpc_, rpc::Server::Start(options_.host, options_.port, services));
  port_ = grpc_->port();
  if (options_.metrics_port >= 0) {
    SY_ASSIGN_OR_RETURN(metrics_server_,
                        metrics::MetricsServer::Start(
                            rpc::TcpHost(options_.host), options_.metrics_port,
                            registry_.get(), [this] { return Readiness(); }));
    metrics_port_ = metrics_server_->port();
  }
  LogInfo(absl::StrCat(
      "listening on ", rpc::ListeningAddress(options_.host, port_),
      metrics_port_ < 0 ? ""
                        : absl::StrCat(", metrics on port ", metrics_port_)));
  // Nobody is waited for from here on: whoever asks sees the progress.
  worker_->StartLoading();
  health_ = StartThread("sy-health", [this] { WatchHealth(); });
  return absl::OkStatus();
}

absl::Status AttentionServer::ChooseExperts(AttentionWorker::Options* worker) {
  if (options_.expert_workers == "local") return absl::OkStatus();
  SY_ASSIGN_OR_RETURN(const std::vector<std::string> addresses,
                      ParseAddresses(options_.expert_workers));
  follows_ = addresses.empty() && !options_.routers.empty();
  if (addresses.empty() && !follows_) return absl::OkStatus();
  // Where routers are, workers will be.
  io_ = std::make_shared<ExpertIo>(
      SpinFor(options_.spin, follows_ ? options_.routers : addresses));
  worker->expert_clients =
      ExpertClientsAt(addresses, io_, registry_.get(), Traffic());
  worker->expert_clients_change = follows_;
  return absl::OkStatus();
}

absl::Status AttentionServer::Join(const model::Checkpoint& checkpoint,
                                   const std::string& instance_id) {
  if (options_.routers.empty()) return absl::OkStatus();
  fabric::MembershipClientOptions options;
  options.routers = options_.routers;
  options.on_view = [this] {
    if (MemberClients* const clients = for_views_.load()) clients->Wake();
  };
  options.take_heat = [this] { return worker_->TakeExpertHeat(); };
  const std::string& host = options_.host;
  MutexLock lock(&mutex_);
  if (stopping_) return absl::OkStatus();
  member_.instance_id = instance_id;
  member_.role = fabric::MemberRole::kAttentionWorker;
  member_.address = !options_.advertise_address.empty()
                        ? options_.advertise_address
                    : host == "0.0.0.0" || host == "::" || host == "[::]"
                        ? absl::StrCat(":", port_)
                        : rpc::ListeningAddress(host, port_);
  member_.model_fingerprint = checkpoint.fingerprint();
  member_.weight_format =
      std::string(model::DTypeName(checkpoint.expert_dtype()));
  member_.version = kVersion;
  SY_ASSIGN_OR_RETURN(membership_, fabric::MembershipClient::Start(
                                       std::move(options), member_));
  if (!follows_) return absl::OkStatus();
  MemberClients::Options members;
  members.model_fingerprint = member_.model_fingerprint;
  members.weight_format = member_.weight_format;
  members.view = [membership = membership_.get()] {
    return membership->view();
  };
  members.connect = [client = ClientOptions(checkpoint, instance_id,
                                            registry_.get(), Traffic(),
                                            io_)](const std::string& address) {
    GrpcExpertClientOptions with_address = client;
    with_address.address = address;
    return NewGrpcExpertClient(std::move(with_address));
  };
  members.set_clients =
      [this](std::vector<std::shared_ptr<ExpertClient>> clients) {
        worker_->SetExpertClients(std::move(clients));
      };
  member_clients_ = std::make_unique<MemberClients>(std::move(members));
  for_views_ = member_clients_.get();
  return absl::OkStatus();
}

void AttentionServer::TellState(fabric::MemberState state) {
  MutexLock lock(&mutex_);
  if (state <= member_.state) return;
  member_.state = state;
  if (membership_ != nullptr) membership_->Update(member_);
}

AttentionWorkerOptions AttentionServer::WorkerOptions() {
  AttentionWorkerOptions worker = options_.worker;
  worker.on_opened = [this](const model::Checkpoint& checkpoint,
                            const std::string& instance_id) {
    return Join(checkpoint, instance_id);
  };
  worker.local_fallback = options_.expert_fallback == "local";
  worker.registry = registry_.get();
  worker.on_loaded = [this](const absl::Status& status) {
    if (!status.ok() && options_.on_load_failed) options_.on_load_failed();
  };
  return worker;
}

void AttentionServer::WatchHealth() {
  WorkerState last = WorkerState::kLoading;
  while (true) {
    const WorkerInfo info = worker_->info();
    if (info.state != last) {
      grpc_->SetServing(info.state == WorkerState::kReady);
      if (info.state == WorkerState::kReady) {
        TellState(fabric::MemberState::kServing);
      }
      const std::string line =
          absl::StrCat(WorkerStateName(info.state),
                       info.message.empty() ? "" : ": ", info.message);
      if (info.state == WorkerState::kWaitingExperts) {
        LogWarning(line);
      } else {
        LogInfo(line);
      }
      last = info.state;
    }
    MutexLock lock(&mutex_);
    if (!stopping_) {
      wake_.WaitUntil(&mutex_, absl::Now() + kHealthPeriod);
    }
    if (stopping_) return;
  }
}

metrics::MetricsServer::Readiness AttentionServer::Readiness() const {
  const WorkerInfo info = worker_->info();
  Json body;
  body["state"] = WorkerStateName(info.state);
  body["loading_progress"] = info.loading_progress;
  body["message"] = info.message;
  body["model_fingerprint"] = info.model_fingerprint;
  body["max_model_len"] = info.max_model_len;
  body["running_requests"] = info.load.running;
  body["waiting_requests"] = info.load.waiting;
  body["state_bytes_used"] = info.load.state_bytes_used;
  body["state_bytes_budget"] = info.load.state_bytes_budget;
  return {.ready = info.state == WorkerState::kReady, .body = DumpJson(body)};
}

void AttentionServer::Shutdown() {
  MutexLock shutdown_lock(&shutdown_mutex_);
  if (shut_down_) return;
  shut_down_ = true;
  if (worker_ == nullptr) return;
  if (grpc_ != nullptr) grpc_->SetServing(false);
  TellState(fabric::MemberState::kDraining);
  if (!worker_->Drain(absl::Now() + options_.drain_timeout)) {
    LogWarning(absl::StrCat("requests are still running after ",
                            absl::FormatDuration(options_.drain_timeout),
                            " of draining: they end with UNAVAILABLE"));
  }
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.Signal();
  }
  if (health_.joinable()) health_.join();
  worker_->Stop();
  if (grpc_ != nullptr) grpc_->Shutdown(kReplyGrace);
  // The clients ask the membership, which wakes them. Nobody makes either any
  // more.
  if (member_clients_ != nullptr) member_clients_->Stop();
  std::unique_ptr<fabric::MembershipClient> membership;
  {
    MutexLock lock(&mutex_);
    membership = std::move(membership_);
  }
  membership = nullptr;
  for_views_ = nullptr;
  member_clients_ = nullptr;
  // Its readiness callback looks at this object.
  metrics_server_ = nullptr;
  // Calls go to the service, the service's to the worker.
  grpc_ = nullptr;
  service_ = nullptr;
  sessions_ = nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options) {
  auto server = std::make_unique<AttentionServer>(std::move(options));
  SY_RETURN_IF_ERROR(server->Start());
  return server;
}

}  // namespace switchyard::attention_worker
