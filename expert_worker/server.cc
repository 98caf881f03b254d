#include "expert_worker/server.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/buffer_pool.h"
#include "base/compute_pool.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "expert_worker/service/compute_queue.h"
#include "expert_worker/service/expert_metrics.h"
#include "expert_worker/service/expert_service.h"
#include "experts/expert_engine.h"
#include "metrics/registry.h"
#include "model/checkpoint.h"
#include "model/checksums.h"
#include "model/expert_set.h"
#include "rpc/address.h"
#include "rpc/queue_poll.h"
#include "rpc/server.h"

namespace switchyard::expert_worker {
namespace {

// Between two lines about a load in progress.
constexpr absl::Duration kProgressPeriod = absl::Seconds(1);

// Of tensors on their way, between two requests: a long prompt's.
constexpr size_t kMaxIdleBytes = size_t{128} << 20;

const char* StateName(ServerState state) {
  switch (state) {
    case ServerState::kLoading:
      return "loading";
    case ServerState::kServing:
      return "serving";
    case ServerState::kFailed:
      return "failed";
    case ServerState::kDraining:
      return "draining";
  }
  return "unknown";
}

// Differs between processes on all machines, so it is drawn, not counted.
std::string NewInstanceId() {
  std::random_device random;
  return absl::StrFormat("%08x%08x", random(), random());
}

absl::Status CheckOptions(const ServerOptions& options) {
  if (options.model_dir.empty()) {
    return absl::InvalidArgumentError("no model directory is given");
  }
  if (!options.slice.empty() && !options.experts.empty()) {
    return absl::InvalidArgumentError(
        "a slice and a list of experts are both given; choose one");
  }
  if (options.port < 0 || options.port > 65535 ||
      options.metrics_port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("ports are 0 to 65535, not ",
                                                   options.port, " and ",
                                                   options.metrics_port));
  }
  SY_RETURN_IF_ERROR(CheckThreads(options.threads, options.cpus));
  if (options.threads < 0 || options.threads > 4096) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads are 0 (all CPUs) to 4096, not ", options.threads));
  }
  if (options.max_queue_bytes < 1 || options.max_rows_in_flight < 1 ||
      options.max_rows_in_flight > kMaxRowsInFlight) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the queue has at least 1 byte and 1 to ", kMaxRowsInFlight,
        " rows in flight, not ", options.max_queue_bytes, " and ",
        options.max_rows_in_flight));
  }
  if (options.spin < absl::ZeroDuration() || options.spin > rpc::kMaxSpin) {
    return absl::InvalidArgumentError(absl::StrCat(
        "spinning is for 0 to ", absl::FormatDuration(rpc::kMaxSpin), ", not ",
        absl::FormatDuration(options.spin)));
  }
  return absl::OkStatus();
}

// The (layer, expert) pairs that the options ask for.
absl::StatusOr<model::ExpertSet> ExpertsToHold(
    const ServerOptions& options, const model::Checkpoint& checkpoint) {
  const int num_experts = checkpoint.config().num_experts;
  std::vector<int> ids;
  if (!options.experts.empty()) {
    SY_ASSIGN_OR_RETURN(ids,
                        model::ParseExpertList(options.experts, num_experts));
  } else {
    const std::string slice = options.slice.empty() ? "1/1" : options.slice;
    SY_ASSIGN_OR_RETURN(ids, model::ExpertsOfSlice(slice, num_experts));
  }
  model::ExpertSet experts(checkpoint.num_expert_layers(), num_experts);
  for (int layer = 0; layer < checkpoint.num_expert_layers(); ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    for (const int id : ids) experts.Insert(layer, id);
  }
  return experts;
}

class ExpertServer final : public Server {
 public:
  explicit ExpertServer(ServerOptions options)
      : options_(std::move(options)),
        registry_(metrics::Registry::Create()),
        metrics_(registry_.get()),
        buffers_(BufferPool::Create(kMaxIdleBytes)),
        service_({.metrics = &metrics_, .buffers = buffers_}, options_.spin) {
    metrics::AddProcessMetrics(registry_.get(), "expert_worker");
  }
  ~ExpertServer() override { Shutdown(); }

  absl::Status Listen();

  int port() const override { return grpc_->port(); }
  int metrics_port() const override {
    return metrics_server_ == nullptr ? -1 : metrics_server_->port();
  }
  ServerState state() const override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return state_;
  }
  absl::Status WaitUntilLoaded(absl::Time deadline) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Shutdown() override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void LoadAndServe();
  absl::Status Load();
  // Serves, unless Shutdown came first.
  void BeginServing();
  void ReportProgress(absl::string_view what, int64_t done, int64_t total);
  metrics::MetricsServer::Readiness Readiness();

  const ServerOptions options_;
  const std::unique_ptr<metrics::Registry> registry_;
  ExpertMetrics metrics_;
  const std::shared_ptr<BufferPool> buffers_;
  ExpertService service_;
  std::unique_ptr<rpc::Server> grpc_;

  // Made by the loading thread; destroyed, like all of these, from below
  // upwards.
  std::unique_ptr<ComputePool> pool_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  std::unique_ptr<experts::ExpertEngine> engine_;
  std::unique_ptr<ComputeQueue> queue_;
  absl::Time next_progress_line_ = absl::InfinitePast();

  mutable Mutex mutex_;
  CondVar changed_;
  ServerState state_ ABSL_GUARDED_BY(mutex_) = ServerState::kLoading;
  absl::Status load_status_ ABSL_GUARDED_BY(mutex_);
  bool loaded_ ABSL_GUARDED_BY(mutex_) = false;  // or failed to
  std::atomic<double> progress_{0};

  Mutex shutdown_mutex_;  // a second caller of Shutdown waits for the first
  bool shut_down_ ABSL_GUARDED_BY(shutdown_mutex_) = false;

  std::thread loader_;
  std::unique_ptr<metrics::MetricsServer> metrics_server_;
};

absl::Status ExpertServer::Listen() {
  grpc::Service* const services[] = {service_.grpc_service()};
  SY_ASSIGN_OR_RETURN(grpc_, rpc::Server::Start(options_.host, options_.port,
                                                services, /*num_queues=*/1));
  service_.Start(grpc_->completion_queue(0));
  if (options_.metrics_port >= 0) {
    SY_ASSIGN_OR_RETURN(metrics_server_,
                        metrics::MetricsServer::Start(
                            rpc::TcpHost(options_.host), options_.metrics_port,
                            registry_.get(), [this] { return Readiness(); }));
  }
  LogInfo(absl::StrCat(
      "listening on ", rpc::ListeningAddress(options_.host, port()),
      metrics_server_ == nullptr
          ? ""
          : absl::StrCat(", metrics on port ", metrics_server_->port())));
  loader_ = StartThread("expert-load", [this] { LoadAndServe(); });
  return absl::OkStatus();
}

void ExpertServer::LoadAndServe() {
  const absl::Status status = Load();
  if (status.ok()) {
    BeginServing();
    return;
  }
  LogError(absl::StrCat("cannot load ", options_.model_dir, ": ",
                        status.ToString()));
  service_.SetNotServing(absl::UnavailableError(
      absl::StrCat("this worker could not load: ", status.message())));
  {
    MutexLock lock(&mutex_);
    load_status_ = status;
    loaded_ = true;
    if (state_ == ServerState::kLoading) state_ = ServerState::kFailed;
    changed_.SignalAll();
  }
  if (options_.on_load_failed) options_.on_load_failed();
}

absl::Status ExpertServer::Load() {
  const absl::Time start = absl::Now();
  if (options_.verify_checksums) {
    SY_RETURN_IF_ERROR(model::VerifyChecksums(
        options_.model_dir, [this](int64_t done, int64_t total) {
          ReportProgress("checking sums", done, total);
        }));
  }
  SY_ASSIGN_OR_RETURN(checkpoint_, model::Checkpoint::Open(options_.model_dir));
  SY_ASSIGN_OR_RETURN(model::ExpertSet experts,
                      ExpertsToHold(options_, *checkpoint_));
  const int threads = ThreadCount(options_.threads, options_.cpus);
  pool_ = NewThreadPool(
      {.num_threads = threads, .name = "expert", .cpus = options_.cpus});
  SY_ASSIGN_OR_RETURN(engine_, experts::ExpertEngine::Create(
                                   {.checkpoint = checkpoint_.get(),
                                    .experts = std::move(experts),
                                    .pool = pool_.get(),
                                    .progress =
                                        [this](int64_t done, int64_t total) {
                                          ReportProgress("loading", done,
                                                         total);
                                        },
                                    .weights = options_.weights}));
  metrics_.resident_bytes->Set(static_cast<double>(engine_->resident_bytes()));
  metrics_.held_experts->Set(static_cast<double>(engine_->holdings().size()));
  LogInfo(absl::StrCat("loaded ", engine_->holdings().size(), " experts, ",
                       engine_->resident_bytes() >> 20, " MiB, in ",
                       absl::FormatDuration(absl::Trunc(absl::Now() - start,
                                                        absl::Milliseconds(1))),
                       "; ", threads, " threads; model ",
                       checkpoint_->fingerprint()));
  return absl::OkStatus();
}

void ExpertServer::BeginServing() {
  const model::ModelConfig& config = checkpoint_->config();
  queue_ = std::make_unique<ComputeQueue>(
      ComputeQueue::Options{.engine = engine_.get(),
                            .hidden_size = config.hidden_size,
                            .max_bytes = options_.max_queue_bytes,
                            .buffers = buffers_,
                            .metrics = &metrics_});
  service_.SetServing(
      {.identity = {.model_fingerprint = checkpoint_->fingerprint(),
                    .instance_id = NewInstanceId(),
                    .num_layers = checkpoint_->num_expert_layers(),
                    .num_experts = config.num_experts,
                    .hidden_size = config.hidden_size,
                    .max_rows_in_flight = options_.max_rows_in_flight,
                    .weight_format = WeightFormatOf(engine_->weight_dtype())},
       .holdings = engine_->holdings(),
       .queue = queue_.get()});
  metrics_.loading_progress->Set(1);
  MutexLock lock(&mutex_);
  progress_ = 1;
  loaded_ = true;
  changed_.SignalAll();
  if (state_ != ServerState::kLoading) return;
  state_ = ServerState::kServing;
  grpc_->SetServing(true);
}

void ExpertServer::ReportProgress(absl::string_view what, int64_t done,
                                  int64_t total) {
  const double share = total == 0 ? 1 : static_cast<double>(done) / total;
  progress_ = share;
  metrics_.loading_progress->Set(share);
  const absl::Time now = absl::Now();
  if (now < next_progress_line_) return;
  next_progress_line_ = now + kProgressPeriod;
  LogInfo(absl::StrFormat("%s: %d of %d MiB (%.0f%%)", what, done >> 20,
                          total >> 20, 100 * share));
  service_.SetNotServing(absl::UnavailableError(absl::StrFormat(
      "this worker is %s its weights: %.0f%%", what, 100 * share)));
}

metrics::MetricsServer::Readiness ExpertServer::Readiness() {
  MutexLock lock(&mutex_);
  Json body;
  body["state"] = StateName(state_);
  body["loading_progress"] = progress_.load();
  if (!load_status_.ok()) body["error"] = std::string(load_status_.message());
  return {.ready = state_ == ServerState::kServing, .body = DumpJson(body)};
}

absl::Status ExpertServer::WaitUntilLoaded(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (!loaded_ && absl::Now() < deadline) {
    changed_.WaitUntil(&mutex_, deadline);
  }
  if (!loaded_) return absl::DeadlineExceededError("still loading");
  return load_status_;
}

void ExpertServer::Shutdown() {
  MutexLock shutdown_lock(&shutdown_mutex_);
  if (shut_down_) return;
  shut_down_ = true;
  {
    MutexLock lock(&mutex_);
    state_ = ServerState::kDraining;
  }
  if (grpc_ != nullptr) {
    grpc_->SetServing(false);
    service_.Drain(absl::Now() + options_.drain_timeout);
    grpc_->Shutdown(absl::ZeroDuration());
    service_.Stop();
  }
  if (loader_.joinable()) loader_.join();
  if (queue_ != nullptr) queue_->Close();
  // Its readiness callback looks at this object.
  metrics_server_ = nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options) {
  SY_RETURN_IF_ERROR(CheckOptions(options));
  auto server = std::make_unique<ExpertServer>(std::move(options));
  SY_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace switchyard::expert_worker
