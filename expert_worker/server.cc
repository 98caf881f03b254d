#include "expert_worker/server.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/buffer_pool.h"
#include "base/compute_pool.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory_limit.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/version.h"
#include "expert_worker/placement/holdings_keeper.h"
#include "expert_worker/service/compute_queue.h"
#include "expert_worker/service/expert_metrics.h"
#include "expert_worker/service/expert_service.h"
#include "experts/expert_engine.h"
#include "fabric/client/membership_client.h"
#include "fabric/membership/member.h"
#include "kernels/amx_kernels.h"
#include "metrics/registry.h"
#include "model/checkpoint.h"
#include "model/checksums.h"
#include "model/expert_set.h"
#include "model/weight_values.h"
#include "rpc/address.h"
#include "rpc/server.h"

namespace switchyard::expert_worker {
namespace {

// Between two lines about a load in progress.
constexpr absl::Duration kProgressPeriod = absl::Seconds(1);

// Of tensors on their way, between two requests: a long prompt's.
constexpr size_t kMaxIdleBytes = size_t{128} << 20;

// Of the memory there is, for the experts of a placed worker.
constexpr int64_t kMemoryPercent = 80;
// For what is in flight when experts were waited for until the time was over.
constexpr absl::Duration kLastRows = absl::Seconds(1);
// Pairs beyond the budget, so that a full worker can load before it lets go.
constexpr int64_t kSparePercent = 2;

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

std::string MachineName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

// The (layer, expert) pairs of the model.
model::ExpertSet AllExperts(const model::Checkpoint& checkpoint) {
  const int num_experts = checkpoint.config().num_experts;
  model::ExpertSet all(checkpoint.num_expert_layers(), num_experts);
  for (int layer = 0; layer < all.num_layers(); ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    for (int expert = 0; expert < num_experts; ++expert) {
      all.Insert(layer, expert);
    }
  }
  return all;
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
    registry_
        ->AddGauge("switchyard_kernels_info",
                   "Always 1; the label tells what this process computes with.",
                   {{"kernels", kernels::DescribeKernels()}})
        ->Set(1);
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
  absl::StatusOr<int64_t> Budget() const;
  // Serves, unless Shutdown came first.
  absl::Status BeginServing() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Join();
  void KeepHoldings();
  void SetState(ServerState state) ABSL_LOCKS_EXCLUDED(mutex_);
  void Tell(const model::ExpertSet& holdings)
      ABSL_LOCKS_EXCLUDED(member_mutex_);
  void TellState(ServerState state) ABSL_LOCKS_EXCLUDED(member_mutex_);
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
  std::unique_ptr<ComputePool> load_pool_;
  int64_t budget_ = 0;  // pairs; 0: not placed
  absl::Time next_progress_line_ = absl::InfinitePast();

  // Of this worker, as the routers are told.
  Mutex member_mutex_;
  fabric::Member member_ ABSL_GUARDED_BY(member_mutex_);
  std::unique_ptr<fabric::MembershipClient> membership_;  // null: no routers
  // Null: not placed. For the membership's callbacks, which may come first.
  std::atomic<HoldingsKeeper*> keeper_for_views_{nullptr};
  std::unique_ptr<HoldingsKeeper> keeper_;

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
  absl::Status status = Load();
  if (status.ok()) status = BeginServing();
  if (status.ok()) return;
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
  SY_ASSIGN_OR_RETURN(
      checkpoint_,
      model::Checkpoint::Open(options_.model_dir, options_.activations));
  model::ExpertSet experts(checkpoint_->num_expert_layers(),
                           checkpoint_->config().num_experts);
  int64_t room = 0;
  if (options_.placed) {
    SY_ASSIGN_OR_RETURN(budget_, Budget());
    room = budget_ + std::max<int64_t>(1, budget_ * kSparePercent / 100);
  } else {
    SY_ASSIGN_OR_RETURN(experts, ExpertsToHold(options_, *checkpoint_));
  }
  const int threads = ThreadCount(options_.threads, options_.cpus);
  pool_ = NewThreadPool(
      {.num_threads = threads, .name = "expert", .cpus = options_.cpus});
  if (options_.placed) {
    load_pool_ = NewThreadPool({.num_threads = options_.load_threads > 0
                                                   ? options_.load_threads
                                                   : std::max(1, threads / 2),
                                .name = "expert-load",
                                .cpus = {}});
  }
  SY_ASSIGN_OR_RETURN(engine_, experts::ExpertEngine::Create(
                                   {.checkpoint = checkpoint_.get(),
                                    .experts = std::move(experts),
                                    .pool = pool_.get(),
                                    .progress =
                                        [this](int64_t done, int64_t total) {
                                          ReportProgress("loading", done,
                                                         total);
                                        },
                                    .weights = options_.weights,
                                    .room = room}));
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

// Pairs that fit.
absl::StatusOr<int64_t> ExpertServer::Budget() const {
  const int64_t all = AllExperts(*checkpoint_).size();
  if (options_.max_experts > 0) return std::min(options_.max_experts, all);
  // An engine of none knows what one takes.
  InlinePool pool;
  SY_ASSIGN_OR_RETURN(
      const std::unique_ptr<experts::ExpertEngine> none,
      experts::ExpertEngine::Create(
          {.checkpoint = checkpoint_.get(),
           .experts = model::ExpertSet(checkpoint_->num_expert_layers(),
                                       checkpoint_->config().num_experts),
           .pool = &pool,
           .progress = nullptr,
           .weights = options_.weights}));
  const int64_t memory = options_.memory_bytes > 0
                             ? options_.memory_bytes
                             : AvailableMemoryBytes() / 100 * kMemoryPercent;
  const int64_t fit =
      none->expert_bytes() == 0
          ? 0
          : memory * 100 / (100 + kSparePercent) / none->expert_bytes();
  if (fit < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "an expert of ", options_.model_dir, " takes ", none->expert_bytes(),
        " bytes; there are ", memory, " for them"));
  }
  return std::min(fit, all);
}

absl::Status ExpertServer::BeginServing() {
  const model::ModelConfig& config = checkpoint_->config();
  const WorkerIdentity identity = {
      .model_fingerprint = checkpoint_->fingerprint(),
      .instance_id = NewInstanceId(),
      .num_layers = checkpoint_->num_expert_layers(),
      .num_experts = config.num_experts,
      .hidden_size = config.hidden_size,
      .max_rows_in_flight = options_.max_rows_in_flight,
      .weight_format = fabric::WeightFormatOf(engine_->weight_dtype()),
      .versions = VersionsOf(options_)};
  queue_ = std::make_unique<ComputeQueue>(
      ComputeQueue::Options{.engine = engine_.get(),
                            .hidden_size = config.hidden_size,
                            .max_bytes = options_.max_queue_bytes,
                            .buffers = buffers_,
                            .metrics = &metrics_});
  service_.SetServing({.identity = identity,
                       .holdings = engine_->holdings(),
                       .queue = queue_.get()});
  bool draining = false;
  {
    MutexLock lock(&mutex_);
    draining = state_ != ServerState::kLoading;
  }
  {
    MutexLock lock(&member_mutex_);
    member_.instance_id = identity.instance_id;
    member_.model_fingerprint = identity.model_fingerprint;
    member_.holdings = engine_->holdings();
  }
  if (!options_.routers.empty() && !draining) {
    SY_RETURN_IF_ERROR(Join());
  }
  if (options_.placed && !draining) {
    KeepHoldings();
  } else {
    SetState(ServerState::kServing);
  }
  return absl::OkStatus();
}

// Joins the routers, as the member that the identity says.
absl::Status ExpertServer::Join() {
  fabric::MembershipClientOptions options;
  options.routers = options_.routers;
  options.on_view = [this] {
    if (HoldingsKeeper* const keeper = keeper_for_views_.load()) {
      keeper->Wake();
    }
  };
  MutexLock lock(&member_mutex_);
  member_.role = fabric::MemberRole::kExpertWorker;
  const std::string& host = options_.host;
  member_.address = !options_.advertise_address.empty()
                        ? options_.advertise_address
                    : host == "0.0.0.0" || host == "::" || host == "[::]"
                        ? absl::StrCat(":", port())
                        : rpc::ListeningAddress(host, port());
  member_.weight_format =
      std::string(model::DTypeName(engine_->weight_dtype()));
  member_.protocol_version = VersionsOf(options_).newest;
  member_.version = kVersion;
  member_.host = options_.node.empty() ? MachineName() : options_.node;
  member_.zone = options_.zone;
  member_.state = options_.placed ? fabric::MemberState::kLoading
                                  : fabric::MemberState::kServing;
  member_.expert_bytes = std::max<int64_t>(1, engine_->expert_bytes());
  member_.budget_experts = budget_;
  member_.replicas = options_.replicas;
  SY_ASSIGN_OR_RETURN(membership_, fabric::MembershipClient::Start(
                                       std::move(options), member_));
  return absl::OkStatus();
}

void ExpertServer::KeepHoldings() {
  HoldingsKeeper::Options options;
  options.engine = engine_.get();
  options.pool = load_pool_.get();
  {
    MutexLock lock(&member_mutex_);
    options.plan.instance_id = member_.instance_id;
  }
  options.plan.experts = AllExperts(*checkpoint_);
  options.plan.replicas = options_.replicas;
  options.plan.rebalance_delay = options_.rebalance_delay;
  options.plan.join_delay = options_.join_delay;
  options.hot_copy_bytes_per_minute = options_.hot_copy_bytes_per_minute;
  options.room = budget_ + std::max<int64_t>(1, budget_ * kSparePercent / 100);
  options.view = [this] { return membership_->view(); };
  options.advertise = [this](const model::ExpertSet& holdings) {
    service_.SetHoldings(holdings);
    Tell(holdings);
  };
  options.in_use = [this](int layer, int expert) {
    return queue_->Uses(layer, expert);
  };
  options.on_complete = [this] { SetState(ServerState::kServing); };
  options.registry = registry_.get();
  LogInfo(absl::StrCat("room for ", budget_,
                       " experts; which, the members decide that the routers "
                       "know"));
  keeper_ = std::make_unique<HoldingsKeeper>(std::move(options));
  keeper_for_views_ = keeper_.get();
}

// The loading is done; nothing changes if Shutdown came first.
void ExpertServer::SetState(ServerState state) {
  metrics_.loading_progress->Set(1);
  {
    MutexLock lock(&mutex_);
    progress_ = 1;
    loaded_ = true;
    changed_.SignalAll();
    if (state_ != ServerState::kLoading) return;
    state_ = state;
    grpc_->SetServing(true);
  }
  TellState(state);
}

void ExpertServer::Tell(const model::ExpertSet& holdings) {
  MutexLock lock(&member_mutex_);
  member_.holdings = holdings;
  if (membership_ != nullptr) membership_->Update(member_);
}

void ExpertServer::TellState(ServerState state) {
  MutexLock lock(&member_mutex_);
  member_.state =
      state == ServerState::kDraining  ? fabric::MemberState::kDraining
      : state == ServerState::kServing ? fabric::MemberState::kServing
                                       : fabric::MemberState::kLoading;
  if (membership_ != nullptr) membership_->Update(member_);
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
  const absl::Time deadline = absl::Now() + options_.drain_timeout;
  if (grpc_ != nullptr) grpc_->SetServing(false);
  if (loader_.joinable()) loader_.join();
  TellState(ServerState::kDraining);
  if (keeper_ != nullptr && !keeper_->Drain(deadline)) {
    LogWarning(
        "some experts that are held here have no other holder: their rows wait "
        "for one");
  }
  if (grpc_ != nullptr) {
    service_.Drain(std::max(deadline, absl::Now() + kLastRows));
    grpc_->Shutdown(absl::ZeroDuration());
    service_.Stop();
  }
  // The keeper asks the membership, which wakes it.
  if (keeper_ != nullptr) keeper_->Stop();
  membership_ = nullptr;
  keeper_for_views_ = nullptr;
  keeper_ = nullptr;
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
