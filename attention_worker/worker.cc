#include "attention_worker/worker.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <random>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "attention_worker/core/engine_metrics.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/layers/mtp_head.h"
#include "attention_worker/layers/step_timer.h"
#include "attention_worker/memory_plan.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/heat_meter.h"
#include "attention_worker/moe/local_expert_client.h"
#include "base/check.h"
#include "base/compute_pool.h"
#include "base/log.h"
#include "base/memory_limit.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/version.h"
#include "experts/expert_engine.h"
#include "experts/on_demand_engine.h"
#include "grammar/vocabulary.h"
#include "model/checksums.h"
#include "text/tokenizer.h"

namespace switchyard::attention_worker {
namespace {

// Between two log lines about a load in progress.
constexpr absl::Duration kProgressPeriod = absl::Seconds(1);
// Drain() looks this often whether requests are left.
constexpr absl::Duration kDrainPoll = absl::Milliseconds(10);
// Of expert ids in a message.
constexpr size_t kMaxExpertListBytes = 200;

// Differs between processes on all machines, so it is drawn, not counted.
std::string NewInstanceId() {
  std::random_device random;
  return absl::StrFormat("%08x%08x", random(), random());
}

std::string DirectoryName(const std::string& path) {
  const std::filesystem::path directory =
      std::filesystem::path(path).lexically_normal();
  return directory.has_filename() ? directory.filename().string()
                                  : directory.parent_path().filename().string();
}

// The experts that the model needs, with or without the MTP head's.
model::ExpertSet ExpertsOf(const model::Checkpoint& checkpoint, bool with_mtp) {
  const model::ModelConfig& config = checkpoint.config();
  model::ExpertSet experts(checkpoint.num_expert_layers(), config.num_experts);
  const int layers = config.num_hidden_layers + (with_mtp ? 1 : 0);
  for (int layer = 0; layer < layers; ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    for (int expert = 0; expert < config.num_experts; ++expert) {
      experts.Insert(layer, expert);
    }
  }
  return experts;
}

// "32 (layer, expert) pairs have no holder: experts 16-31 of layer 0, ..."
std::string DescribeMissing(const model::ExpertSet& missing) {
  for (int layer = 0; layer < missing.num_layers(); ++layer) {
    std::vector<int> experts;
    for (int expert = 0; expert < missing.num_experts(); ++expert) {
      if (missing.Contains(layer, expert)) experts.push_back(expert);
    }
    if (experts.empty()) continue;
    std::string list = model::FormatExpertList(experts);
    if (list.size() > kMaxExpertListBytes) {
      list = absl::StrCat(list.substr(0, kMaxExpertListBytes), "...");
    }
    return absl::StrCat(missing.size(),
                        " (layer, expert) pairs have no holder: of layer ",
                        layer, " experts ", list);
  }
  return "";
}

absl::Status CheckOptions(const AttentionWorker::Options& options) {
  if (options.model_dir.empty()) {
    return absl::InvalidArgumentError("no model directory is given");
  }
  if (options.threads < 0 || options.threads > 4096) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads is ", options.threads, "; it must be 0 (all CPUs) to 4096"));
  }
  SY_RETURN_IF_ERROR(CheckThreads(options.threads, options.cpus));
  if (options.max_model_len < 0 || options.max_model_len == 1 ||
      options.state_memory_bytes < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "context_length is ", options.max_model_len, " and state_memory ",
        options.state_memory_bytes,
        "; give 2 or more tokens, and bytes above 0 (or 0 to let the worker "
        "decide)"));
  }
  const auto at_least_one = [](const char* name, int64_t value) {
    return value >= 1 ? absl::OkStatus()
                      : absl::InvalidArgumentError(absl::StrCat(
                            name, " is ", value, "; it must be 1 or more"));
  };
  SY_RETURN_IF_ERROR(
      at_least_one("max_running_requests", options.max_running_requests));
  SY_RETURN_IF_ERROR(
      at_least_one("max_queued_requests", options.max_queued_requests));
  SY_RETURN_IF_ERROR(
      at_least_one("chunked_prefill_size", options.chunked_prefill_size));
  if (options.expert_wait_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert_wait_timeout is ",
                     absl::FormatDuration(options.expert_wait_timeout),
                     "; it must be above 0"));
  }
  if (!(options.verify_fraction >= 0 && options.verify_fraction <= 1) ||
      options.join_probes < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "verify_fraction is ", options.verify_fraction, " and join_probes ",
        options.join_probes, "; give a share from 0 to 1, and 0 or more"));
  }
  SY_CHECK(options.registry != nullptr);
  return DraftTokens(options.speculative, /*has_mtp=*/true).status();
}

// For outputs that must follow a grammar. Null, with a warning, if the
// directory has no tokenizer: other requests need none.
std::shared_ptr<const grammar::Vocabulary> ReadVocabulary(
    const std::string& model_dir, int64_t size) {
  const absl::StatusOr<std::unique_ptr<text::Tokenizer>> tokenizer =
      text::Tokenizer::Load(model_dir);
  if (!tokenizer.ok()) {
    LogWarning(absl::StrCat("no structured output and no forced tool calls: ",
                            tokenizer.status().ToString()));
    return nullptr;
  }
  return grammar::Vocabulary::Create(**tokenizer, size);
}

class AttentionWorkerImpl final : public AttentionWorker {
 public:
  explicit AttentionWorkerImpl(Options options)
      : options_(std::move(options)),
        instance_id_(NewInstanceId()),
        loading_progress_(options_.registry->AddGauge(
            "switchyard_loading_progress",
            "Share of the weights that are in memory, 0 to 1.")) {
    if (options_.model_name.empty()) {
      options_.model_name = DirectoryName(options_.model_dir);
    }
  }

  ~AttentionWorkerImpl() override {
    if (loader_.joinable()) loader_.join();
    Stop();
  }

  void StartLoading() override {
    SY_CHECK(!loader_.joinable());
    loader_ = StartThread("sy-load", [this] { LoadAndReport(); });
  }

  absl::StatusOr<Engine*> engine() const override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (draining_) {
      return absl::UnavailableError(
          "this worker is draining; send the request to another one");
    }
    if (engine_ == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("this worker is loading: ", LoadingMessage()));
    }
    return engine_.get();
  }

  absl::StatusOr<Engine*> engine_to_leave() const override
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (engine_ == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("this worker is loading: ", LoadingMessage()));
    }
    return engine_.get();
  }

  WorkerInfo info() const override ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Status WaitUntilLoaded(absl::Time deadline) const override
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (!load_ended_) {
      if (!changed_.WaitUntil(&mutex_, deadline) && absl::Now() >= deadline) {
        break;
      }
    }
    return load_ended_ ? load_status_
                       : absl::DeadlineExceededError(
                             absl::StrCat("still loading: ", LoadingMessage()));
  }

  void SetExpertClients(std::vector<std::shared_ptr<ExpertClient>> clients)
      override ABSL_LOCKS_EXCLUDED(clients_mutex_) {
    // Held while the old ones end: sets do not overtake one another.
    MutexLock lock(&clients_mutex_);
    if (dispatcher_ != nullptr) dispatcher_->SetClients(clients);
    clients_ = std::move(clients);
  }

  std::vector<uint32_t> TakeExpertHeat() override
      ABSL_LOCKS_EXCLUDED(clients_mutex_) {
    MutexLock lock(&clients_mutex_);
    return heat_ == nullptr ? std::vector<uint32_t>() : heat_->Take();
  }

  bool Drain(absl::Time deadline) override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    draining_ = true;
    while (engine_ != nullptr) {
      const EngineLoad load = engine_->load();
      // What the last request left may be on its way to another worker.
      if (load.running + load.waiting + load.transfers == 0) break;
      const absl::Time now = absl::Now();
      if (now >= deadline) return false;
      changed_.WaitUntil(&mutex_, std::min(deadline, now + kDrainPoll));
    }
    return true;
  }

  void Stop() override ABSL_LOCKS_EXCLUDED(mutex_) {
    Engine* engine = nullptr;
    {
      MutexLock lock(&mutex_);
      draining_ = true;
      engine = engine_.get();
    }
    if (engine != nullptr) engine->Stop();
  }

 private:
  void LoadAndReport() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Load() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status OpenCheckpoint();
  absl::StatusOr<MemoryPlan> DecideMemory();
  absl::Status MakeExperts();
  absl::StatusOr<std::shared_ptr<ExpertClient>> MakeFallback();
  absl::Status MakeModel(const MemoryPlan& plan) ABSL_LOCKS_EXCLUDED(mutex_);

  bool drafts() const { return max_draft_tokens_ > 0; }

  // A load is a sequence of phases, each with its own bytes.
  void BeginPhase(const std::string& what) { phase_ = what; }
  void ReportProgress(int64_t done, int64_t total) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndPhase(int64_t bytes) { bytes_done_ += bytes; }

  std::string LoadingMessage() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Options options_;
  const std::string instance_id_;
  metrics::Gauge* const loading_progress_;

  // Made by the loading thread, and not changed after loading has ended. In the
  // order in which they rest on one another.
  std::unique_ptr<ComputePool> pool_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  int max_draft_tokens_ = 0;
  std::unique_ptr<experts::ExpertEngine> local_experts_;
  std::unique_ptr<ExpertDispatcher> dispatcher_;
  std::unique_ptr<HeatMeter> heat_;  // what the model dispatches through
  StepTimer timer_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<MtpHead> mtp_head_;     // null: nobody drafts
  std::unique_ptr<SnapshotStore> store_;  // null: memory alone
  std::unique_ptr<EngineMetrics> metrics_;

  // Of the expert workers, as they come and go.
  mutable Mutex clients_mutex_;
  std::vector<std::shared_ptr<ExpertClient>> clients_
      ABSL_GUARDED_BY(clients_mutex_);

  mutable std::atomic<bool> were_complete_{false};  // every expert had a holder

  // The loading thread's own.
  std::string phase_;
  int64_t bytes_done_ = 0;   // of earlier phases
  int64_t bytes_total_ = 0;  // of all phases; 0: not known yet
  absl::Time next_progress_line_ = absl::InfinitePast();

  mutable Mutex mutex_;
  mutable CondVar changed_;
  bool load_ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status load_status_ ABSL_GUARDED_BY(mutex_);
  std::string load_message_ ABSL_GUARDED_BY(mutex_) = "opening the checkpoint";
  double progress_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  WorkerInfo static_info_ ABSL_GUARDED_BY(mutex_);  // what loading found out
  // Set once. The engine is stopped before anything that it uses goes.
  std::unique_ptr<Engine> engine_ ABSL_GUARDED_BY(mutex_);

  std::thread loader_;
};

void AttentionWorkerImpl::LoadAndReport() {
  const absl::Time start = absl::Now();
  const absl::Status status = Load();
  if (status.ok()) {
    LogInfo(absl::StrCat("loaded ", options_.model_dir, " in ",
                         absl::FormatDuration(absl::Trunc(
                             absl::Now() - start, absl::Milliseconds(1)))));
  } else {
    LogError(absl::StrCat("cannot load ", options_.model_dir, ": ",
                          status.ToString()));
  }
  {
    MutexLock lock(&mutex_);
    load_ended_ = true;
    load_status_ = status;
    changed_.SignalAll();
  }
  if (options_.on_loaded) options_.on_loaded(status);
}

absl::Status AttentionWorkerImpl::Load() {
  SY_RETURN_IF_ERROR(OpenCheckpoint());
  SY_ASSIGN_OR_RETURN(const MemoryPlan plan, DecideMemory());
  LogInfo(plan.explanation);
  pool_ = NewThreadPool(
      {.num_threads = ThreadCount(options_.threads, options_.cpus),
       .name = "compute",
       .cpus = options_.cpus});
  SY_RETURN_IF_ERROR(MakeExperts());
  return MakeModel(plan);
}

absl::Status AttentionWorkerImpl::OpenCheckpoint() {
  if (options_.verify_checksums) {
    BeginPhase("comparing checksums");
    SY_RETURN_IF_ERROR(model::VerifyChecksums(
        options_.model_dir,
        [this](int64_t done, int64_t total) { ReportProgress(done, total); }));
  }
  SY_ASSIGN_OR_RETURN(checkpoint_, model::Checkpoint::Open(options_.model_dir));
  SY_ASSIGN_OR_RETURN(max_draft_tokens_, DraftTokens(options_.speculative,
                                                     checkpoint_->has_mtp()));
  if (options_.on_opened) {
    SY_RETURN_IF_ERROR(options_.on_opened(*checkpoint_, instance_id_));
  }
  MutexLock lock(&mutex_);
  static_info_.model_fingerprint = checkpoint_->fingerprint();
  static_info_.vocab_size = checkpoint_->config().vocab_size;
  return absl::OkStatus();
}

absl::StatusOr<MemoryPlan> AttentionWorkerImpl::DecideMemory() {
  SY_ASSIGN_OR_RETURN(const WeightBytes weights,
                      MeasureWeights(*checkpoint_, drafts()));
  bytes_total_ =
      weights.others + (options_.expert_clients ? 0 : weights.experts);
  return PlanMemory(
      {.available_bytes = AvailableMemoryBytes(),
       .weight_bytes = bytes_total_,
       .state_bytes = options_.state_memory_bytes,
       .max_model_len = options_.max_model_len},
      StateShape(checkpoint_->config(), max_draft_tokens_,
                 KvDTypeFor(options_.kv_cache_dtype, *checkpoint_)),
      checkpoint_->config().max_position_embeddings);
}

absl::Status AttentionWorkerImpl::MakeExperts() {
  std::shared_ptr<ReplyPump> pump;
  std::vector<std::shared_ptr<ExpertClient>> clients;
  if (options_.expert_clients) {
    SY_ASSIGN_OR_RETURN(ExpertClients remote,
                        options_.expert_clients(*checkpoint_, instance_id_));
    clients = std::move(remote.clients);
    pump = std::move(remote.pump);
  } else {
    BeginPhase("reading experts");
    experts::ExpertEngine::Options experts;
    experts.checkpoint = checkpoint_.get();
    experts.experts = ExpertsOf(*checkpoint_, drafts());
    experts.pool = pool_.get();
    experts.weights = options_.weights;
    experts.progress = [this](int64_t done, int64_t total) {
      ReportProgress(done, total);
    };
    SY_ASSIGN_OR_RETURN(local_experts_,
                        experts::ExpertEngine::Create(std::move(experts)));
    EndPhase(local_experts_->resident_bytes());
    clients.push_back(std::make_shared<LocalExpertClient>(local_experts_.get(),
                                                          options_.registry));
  }
  if (clients.empty() && !options_.expert_clients_change) {
    return absl::InvalidArgumentError("there is no expert worker");
  }
  ExpertDispatcherOptions dispatcher;
  dispatcher.pool = pool_.get();
  // Without the MTP head's experts there are no drafts, but every token.
  dispatcher.required = ExpertsOf(*checkpoint_, /*with_mtp=*/false);
  dispatcher.pump = std::move(pump);
  dispatcher.quantize_rows = kernels::IsQuantized(checkpoint_->expert_dtype());
  dispatcher.registry = options_.registry;
  dispatcher.max_wait = options_.expert_wait_timeout;
  if (options_.expert_clients && options_.local_fallback) {
    SY_ASSIGN_OR_RETURN(dispatcher.fallback, MakeFallback());
  }
  dispatcher.verify_fraction = options_.verify_fraction;
  dispatcher.health.join_probes = options_.join_probes;
  auto made = NewExpertDispatcher(std::move(dispatcher));
  auto meter =
      std::make_unique<HeatMeter>(made.get(), checkpoint_->num_expert_layers(),
                                  checkpoint_->config().num_experts);
  MutexLock lock(&clients_mutex_);
  if (!options_.expert_clients_change) clients_ = std::move(clients);
  made->SetClients(clients_);
  dispatcher_ = std::move(made);
  heat_ = std::move(meter);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ExpertClient>>
AttentionWorkerImpl::MakeFallback() {
  experts::OnDemandEngine::Options fallback;
  fallback.checkpoint = checkpoint_.get();
  fallback.experts = ExpertsOf(*checkpoint_, drafts());
  fallback.pool = pool_.get();
  metrics::Counter* const reads = options_.registry->AddCounter(
      "switchyard_expert_fallback_reads_total",
      "Experts that were read from the checkpoint because no expert worker "
      "held them when they were wanted.");
  fallback.on_read = [reads](const experts::ExpertEngine::Pair& pair) {
    if (reads->value() == 0) {
      LogWarning(
          absl::StrCat("no expert worker holds expert ", pair.expert,
                       " of layer ", pair.layer,
                       ": it is computed here, as others will be; "
                       "switchyard_expert_fallback_reads_total counts them"));
    }
    reads->Increment();
  };
  SY_ASSIGN_OR_RETURN(local_experts_,
                      experts::OnDemandEngine::Create(std::move(fallback)));
  return std::make_shared<LocalExpertClient>(local_experts_.get(),
                                             options_.registry, "fallback");
}

absl::Status AttentionWorkerImpl::MakeModel(const MemoryPlan& plan) {
  BeginPhase("reading layers");
  ModelRunner::Options runner;
  runner.checkpoint = checkpoint_.get();
  runner.dispatcher = heat_.get();
  runner.pool = pool_.get();
  runner.timer = &timer_;
  runner.weights = options_.weights;
  runner.kv_dtype = KvDTypeFor(options_.kv_cache_dtype, *checkpoint_);
  runner.progress = [this](int64_t done, int64_t total) {
    ReportProgress(done, total);
  };
  runner.max_draft_tokens = max_draft_tokens_;
  SY_ASSIGN_OR_RETURN(runner_, ModelRunner::Create(runner));
  if (drafts()) {
    BeginPhase("reading the MTP head");
    SY_ASSIGN_OR_RETURN(mtp_head_, MtpHead::Create(runner, runner_.get()));
  }
  if (!options_.snapshot_dir.empty() && options_.prefix_caching) {
    SY_ASSIGN_OR_RETURN(
        store_,
        SnapshotStore::Open({.directory = options_.snapshot_dir,
                             .budget_bytes = options_.snapshot_dir_bytes,
                             .model = checkpoint_->fingerprint()},
                            runner_->state_shape()));
    LogInfo(absl::StrCat(options_.snapshot_dir, " holds ",
                         store_->stats().files, " states, ",
                         store_->stats().bytes >> 20, " MiB"));
  }
  metrics_ = std::make_unique<EngineMetrics>(
      options_.registry, options_.model_name, plan.max_model_len);
  const StateShape& shape = runner_->state_shape();
  options_.registry
      ->AddGauge("switchyard_engine_kv_cache_token_bytes",
                 "Bytes of keys and values of one token, in dtype.",
                 {{"model_name", options_.model_name},
                  {"dtype", KvDTypeName(shape.kv.dtype)}})
      ->Set(static_cast<double>(shape.BytesPerToken()));
  Engine::Options engine;
  engine.runner = runner_.get();
  engine.vocab_size = checkpoint_->config().vocab_size;
  engine.max_model_len = plan.max_model_len;
  engine.max_running_requests = options_.max_running_requests;
  engine.max_queued_requests = options_.max_queued_requests;
  // A queue of long prompts must not outgrow the budgets: four of the longest,
  // or a thousand tokens for each request that may wait.
  engine.max_queued_tokens =
      std::max(4 * plan.max_model_len, 1024 * options_.max_queued_requests);
  engine.chunked_prefill_size = options_.chunked_prefill_size;
  engine.prefix_caching = options_.prefix_caching;
  engine.store = store_.get();
  engine.mtp_head = mtp_head_.get();
  engine.adaptive_drafts = options_.speculative.adaptive;
  engine.state_memory_bytes = plan.state_bytes;
  engine.metrics = metrics_.get();
  engine.timer = &timer_;
  engine.pool = pool_.get();
  engine.vocabulary = ReadVocabulary(options_.model_dir, engine.vocab_size);
  SY_ASSIGN_OR_RETURN(std::unique_ptr<Engine> made, Engine::Create(engine));
  loading_progress_->Set(1);
  MutexLock lock(&mutex_);
  progress_ = 1;
  static_info_.max_model_len = plan.max_model_len;
  engine_ = std::move(made);
  return absl::OkStatus();
}

void AttentionWorkerImpl::ReportProgress(int64_t done, int64_t total) {
  // While nothing is known of the later phases, a phase's own share stands in
  // the message only.
  const double share =
      bytes_total_ <= 0
          ? 0
          : std::min(1.0, static_cast<double>(bytes_done_ + done) /
                              static_cast<double>(bytes_total_));
  loading_progress_->Set(share);
  std::string message =
      absl::StrFormat("%s, %d of %d MiB", phase_, done >> 20, total >> 20);
  const absl::Time now = absl::Now();
  if (now >= next_progress_line_) {
    next_progress_line_ = now + kProgressPeriod;
    LogInfo(message);
  }
  MutexLock lock(&mutex_);
  progress_ = std::max(progress_, share);
  load_message_ = std::move(message);
}

std::string AttentionWorkerImpl::LoadingMessage() const {
  if (load_ended_ && !load_status_.ok()) {
    return absl::StrCat("failed: ", load_status_.message());
  }
  return load_message_;
}

WorkerInfo AttentionWorkerImpl::info() const {
  WorkerInfo info;
  bool loaded = false;
  bool draining = false;
  {
    MutexLock lock(&mutex_);
    info = static_info_;
    info.loading_progress = progress_;
    loaded = engine_ != nullptr;
    draining = draining_;
    if (loaded) {
      info.load = engine_->load();
      const StateShape& shape = engine_->state_shape();
      info.state_fixed_bytes = shape.FixedBytes();
      info.state_token_bytes =
          shape.BytesPerToken() + static_cast<int64_t>(sizeof(int32_t));
    } else {
      info.message = LoadingMessage();
    }
  }
  info.instance_id = instance_id_;
  info.version = kVersion;
  if (loaded) {
    const model::ExpertSet missing = dispatcher_->MissingExperts();
    // Who computes what is missing is ready all the same, but not before the
    // expert workers have been there: a pool that starts is not to be computed
    // here.
    if (missing.empty()) were_complete_.store(true, std::memory_order_relaxed);
    const bool stands_in = options_.local_fallback &&
                           were_complete_.load(std::memory_order_relaxed);
    info.state = missing.empty() || stands_in ? WorkerState::kReady
                                              : WorkerState::kWaitingExperts;
    info.message = DescribeMissing(missing);
    std::vector<std::shared_ptr<ExpertClient>> clients;
    {
      MutexLock lock(&clients_mutex_);
      clients = clients_;
    }
    for (const auto& client : clients) {
      const absl::Status health = client->health();
      if (missing.empty() || health.ok()) continue;
      absl::StrAppend(&info.message, "; ", client->name(), ": ",
                      health.message());
    }
  }
  if (draining) {
    info.state = WorkerState::kDraining;
    info.message = "draining";
  }
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionWorker>> AttentionWorker::Create(
    Options options) {
  SY_RETURN_IF_ERROR(CheckOptions(options));
  return std::unique_ptr<AttentionWorker>(
      new AttentionWorkerImpl(std::move(options)));
}

}  // namespace switchyard::attention_worker
