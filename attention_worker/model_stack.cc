#include "attention_worker/model_stack.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/moe/local_expert_client.h"
#include "base/compute_pool.h"
#include "base/log.h"
#include "base/memory_limit.h"
#include "base/status_macros.h"
#include "experts/on_demand_engine.h"
#include "grammar/vocabulary.h"
#include "model/checksums.h"
#include "text/tokenizer.h"

namespace switchyard::attention_worker {
namespace {

// That read experts from disk at a time, mostly waiting.
constexpr int kReadingThreads = 8;

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

}  // namespace

ModelStack::ModelStack(const AttentionWorkerOptions& options,
                       std::string instance_id, LoadProgress* progress)
    : options_(options),
      instance_id_(std::move(instance_id)),
      progress_(progress) {}

ModelStack::~ModelStack() = default;

absl::Status ModelStack::OpenCheckpoint() {
  if (options_.verify_checksums) {
    progress_->BeginPhase("comparing checksums");
    SY_RETURN_IF_ERROR(model::VerifyChecksums(
        options_.model_dir, [this](int64_t done, int64_t total) {
          progress_->Report(done, total);
        }));
  }
  SY_ASSIGN_OR_RETURN(
      checkpoint_,
      model::Checkpoint::Open(options_.model_dir, options_.activations));
  SY_ASSIGN_OR_RETURN(max_draft_tokens_, DraftTokens(options_.speculative,
                                                     checkpoint_->has_mtp()));
  if (options_.on_opened) {
    SY_RETURN_IF_ERROR(options_.on_opened(*checkpoint_, instance_id_));
  }
  SY_ASSIGN_OR_RETURN(plan_, DecideMemory());
  LogInfo(plan_.explanation);
  return absl::OkStatus();
}

absl::StatusOr<MemoryPlan> ModelStack::DecideMemory() {
  SY_ASSIGN_OR_RETURN(const WeightBytes weights,
                      MeasureWeights(*checkpoint_, drafts()));
  const int64_t experts =
      options_.expert_clients ? 0
      : options_.experts_memory_bytes > 0
          ? std::min(weights.experts, options_.experts_memory_bytes)
          : weights.experts;
  const int64_t bytes = weights.others + experts;
  progress_->ExpectBytes(ReadsOnDemand() ? weights.others : bytes);
  return PlanMemory(
      {.available_bytes = AvailableMemoryBytes(),
       .weight_bytes = bytes,
       .state_bytes = options_.state_memory_bytes,
       .max_model_len = options_.max_model_len},
      StateShape(checkpoint_->config(), max_draft_tokens_,
                 KvDTypeFor(options_.kv_cache_dtype, *checkpoint_)),
      checkpoint_->config().max_position_embeddings);
}

absl::StatusOr<std::vector<std::shared_ptr<ExpertClient>>>
ModelStack::MakeExperts() {
  pool_ = NewThreadPool(
      {.num_threads = ThreadCount(options_.threads, options_.cpus),
       .name = "compute",
       .cpus = options_.cpus});
  std::shared_ptr<ReplyPump> pump;
  std::vector<std::shared_ptr<ExpertClient>> clients;
  if (options_.expert_clients) {
    SY_ASSIGN_OR_RETURN(ExpertClients remote,
                        options_.expert_clients(*checkpoint_, instance_id_));
    clients = std::move(remote.clients);
    pump = std::move(remote.pump);
  } else if (ReadsOnDemand()) {
    SY_RETURN_IF_ERROR(MakeExpertCache());
    clients.push_back(std::make_shared<LocalExpertClient>(local_experts_.get(),
                                                          options_.registry));
  } else {
    progress_->BeginPhase("reading experts");
    experts::ExpertEngine::Options experts;
    experts.checkpoint = checkpoint_.get();
    experts.experts = ExpertsOf(*checkpoint_, drafts());
    experts.pool = pool_.get();
    experts.weights = options_.weights;
    experts.progress = [this](int64_t done, int64_t total) {
      progress_->Report(done, total);
    };
    SY_ASSIGN_OR_RETURN(local_experts_,
                        experts::ExpertEngine::Create(std::move(experts)));
    progress_->EndPhase(local_experts_->resident_bytes());
    clients.push_back(std::make_shared<LocalExpertClient>(local_experts_.get(),
                                                          options_.registry));
  }
  ExpertDispatcherOptions dispatcher;
  dispatcher.pool = pool_.get();
  // Without the MTP head's experts there are no drafts, but every token.
  dispatcher.required = ExpertsOf(*checkpoint_, /*with_mtp=*/false);
  dispatcher.pump = std::move(pump);
  dispatcher.row_format = kernels::RowFormatOf(checkpoint_->expert_dtype());
  dispatcher.registry = options_.registry;
  dispatcher.max_wait = options_.expert_wait_timeout;
  if (options_.expert_clients && options_.local_fallback) {
    SY_ASSIGN_OR_RETURN(dispatcher.fallback, MakeFallback());
  }
  dispatcher.hedging = options_.hedge_share > 0;
  dispatcher.hedge_share = options_.hedge_share;
  dispatcher.verify_fraction = options_.verify_fraction;
  dispatcher.health.join_probes = options_.join_probes;
  dispatcher_ = NewExpertDispatcher(std::move(dispatcher));
  heat_ = std::make_unique<HeatMeter>(dispatcher_.get(),
                                      checkpoint_->num_expert_layers(),
                                      checkpoint_->config().num_experts);
  return clients;
}

absl::Status ModelStack::MakeExpertCache() {
  reading_pool_ = NewThreadPool({.num_threads = kReadingThreads,
                                 .name = "read",
                                 .spin = absl::ZeroDuration(),
                                 .cpus = {}});
  experts::OnDemandEngine::Options cache;
  cache.checkpoint = checkpoint_.get();
  cache.experts = ExpertsOf(*checkpoint_, drafts());
  cache.pool = pool_.get();
  cache.memory_bytes = options_.experts_memory_bytes;
  cache.reading_pool = reading_pool_.get();
  metrics::Registry* const registry = options_.registry;
  cache.on_batch =
      [hits = registry->AddCounter(
           "switchyard_expert_cache_hits_total",
           "Experts that were in memory when a batch of rows wanted them."),
       reads = registry->AddCounter(
           "switchyard_expert_cache_reads_total",
           "Experts that had to be read from disk, others making room."),
       seconds = registry->AddCounter(
           "switchyard_expert_cache_read_seconds_total",
           "Time that steps waited for experts from disk.")](
          int64_t hit, int64_t read, absl::Duration reading) {
        hits->Increment(static_cast<double>(hit));
        reads->Increment(static_cast<double>(read));
        seconds->Increment(absl::ToDoubleSeconds(reading));
      };
  SY_ASSIGN_OR_RETURN(std::unique_ptr<experts::OnDemandEngine> made,
                      experts::OnDemandEngine::Create(std::move(cache)));
  LogInfo(absl::StrCat("room for ", made->room(), " of ",
                       made->holdings().size(),
                       " experts in memory; the others are read when they are "
                       "wanted"));
  local_experts_ = std::move(made);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ExpertClient>> ModelStack::MakeFallback() {
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

absl::Status ModelStack::OpenStore() {
  if (options_.snapshot_dir.empty() || !options_.prefix_caching) {
    return absl::OkStatus();
  }
  SY_ASSIGN_OR_RETURN(
      store_, SnapshotStore::Open({.directory = options_.snapshot_dir,
                                   .budget_bytes = options_.snapshot_dir_bytes,
                                   .model = checkpoint_->fingerprint()},
                                  runner_->state_shape()));
  LogInfo(absl::StrCat(options_.snapshot_dir, " holds ", store_->stats().files,
                       " states, ", store_->stats().bytes >> 20, " MiB"));
  return absl::OkStatus();
}

absl::Status ModelStack::MakeEngine() {
  progress_->BeginPhase("reading layers");
  ModelRunner::Options runner;
  runner.checkpoint = checkpoint_.get();
  runner.dispatcher = heat_.get();
  runner.pool = pool_.get();
  runner.timer = &timer_;
  runner.weights = options_.weights;
  runner.kv_dtype = KvDTypeFor(options_.kv_cache_dtype, *checkpoint_);
  runner.progress = [this](int64_t done, int64_t total) {
    progress_->Report(done, total);
  };
  runner.max_draft_tokens = max_draft_tokens_;
  SY_ASSIGN_OR_RETURN(runner_, ModelRunner::Create(runner));
  if (drafts()) {
    progress_->BeginPhase("reading the MTP head");
    SY_ASSIGN_OR_RETURN(mtp_head_, MtpHead::Create(runner, runner_.get()));
  }
  SY_RETURN_IF_ERROR(OpenStore());
  metrics_ = std::make_unique<EngineMetrics>(
      options_.registry, options_.model_name, plan_.max_model_len);
  const StateShape& shape = runner_->state_shape();
  options_.registry
      ->AddGauge("switchyard_engine_kv_cache_token_bytes",
                 "Bytes of keys and values of one token, in dtype.",
                 {{"model_name", options_.model_name},
                  {"dtype", KvDTypeName(shape.kv.dtype)}})
      ->Set(static_cast<double>(shape.BytesPerToken()));
  return StartEngine();
}

absl::Status ModelStack::StartEngine() {
  Engine::Options engine;
  engine.runner = runner_.get();
  engine.vocab_size = checkpoint_->config().vocab_size;
  engine.max_model_len = plan_.max_model_len;
  engine.max_running_requests = options_.max_running_requests;
  engine.max_queued_requests = options_.max_queued_requests;
  // A queue of long prompts must not outgrow the budgets: four of the longest,
  // or a thousand tokens for each request that may wait.
  engine.max_queued_tokens =
      std::max(4 * plan_.max_model_len, 1024 * options_.max_queued_requests);
  engine.chunked_prefill_size = options_.chunked_prefill_size;
  engine.prefix_caching = options_.prefix_caching;
  engine.store = store_.get();
  engine.mtp_head = mtp_head_.get();
  engine.adaptive_drafts = options_.speculative.adaptive;
  engine.state_memory_bytes = plan_.state_bytes;
  engine.metrics = metrics_.get();
  engine.timer = &timer_;
  engine.pool = pool_.get();
  engine.vocabulary = ReadVocabulary(options_.model_dir, engine.vocab_size);
  SY_ASSIGN_OR_RETURN(engine_, Engine::Create(engine));
  progress_->Finish();
  return absl::OkStatus();
}

}  // namespace switchyard::attention_worker
