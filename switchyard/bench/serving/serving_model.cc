#include "switchyard/bench/serving/serving_model.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "attention_worker/core/engine_metrics.h"
#include "attention_worker/moe/local_expert_client.h"
#include "base/status_macros.h"
#include "kernels/quantized.h"
#include "model/expert_set.h"

namespace switchyard::bench {
namespace {

using attention_worker::Engine;
using attention_worker::ModelRunner;
using attention_worker::MtpHead;

model::ExpertSet AllExperts(const model::Checkpoint& checkpoint) {
  const int num_experts = checkpoint.config().num_experts;
  model::ExpertSet experts(checkpoint.num_expert_layers(), num_experts);
  for (int layer = 0; layer < checkpoint.num_expert_layers(); ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    for (int e = 0; e < num_experts; ++e) experts.Insert(layer, e);
  }
  return experts;
}

constexpr char kHeldMetric[] = "switchyard_engine_state_memory_bytes";

}  // namespace

ServingEngine::ServingEngine(
    std::unique_ptr<metrics::Registry> registry,
    std::unique_ptr<attention_worker::EngineMetrics> metrics,
    std::unique_ptr<CountingRunner> runner, std::unique_ptr<Engine> engine)
    : registry_(std::move(registry)),
      metrics_(std::move(metrics)),
      runner_(std::move(runner)),
      engine_(std::move(engine)) {}

ServingEngine::~ServingEngine() = default;

absl::StatusOr<int64_t> ServingEngine::StateBytesHeld() {
  const std::string text = registry_->Expose();
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, absl::StrCat(kHeldMetric, "{"))) continue;
    double bytes = 0;
    if (absl::SimpleAtod(line.substr(line.rfind(' ') + 1), &bytes)) {
      return static_cast<int64_t>(bytes);
    }
  }
  return absl::InternalError(
      absl::StrCat("the engine's metrics have no ", kHeldMetric));
}

absl::StatusOr<std::unique_ptr<ServingModel>> ServingModel::Create(
    Options options) {
  std::unique_ptr<ServingModel> model(new ServingModel(std::move(options)));
  const Options& own = model->options_;
  model->registry_ = metrics::Registry::Create();
  model->pool_ = NewThreadPool(
      {.num_threads = own.threads, .name = "compute", .cpus = own.cpus});
  experts::ExpertEngine::Options experts;
  experts.checkpoint = own.checkpoint;
  experts.experts = AllExperts(*own.checkpoint);
  experts.pool = model->pool_.get();
  experts.weights = own.weights;
  experts.progress = [&own](int64_t done, int64_t total) {
    if (own.progress) own.progress("reading experts", done, total);
  };
  SY_ASSIGN_OR_RETURN(model->experts_,
                      experts::ExpertEngine::Create(std::move(experts)));
  model->client_ = std::make_shared<attention_worker::LocalExpertClient>(
      model->experts_.get(), model->registry_.get());
  attention_worker::ExpertDispatcherOptions dispatcher;
  dispatcher.clients = {model->client_};
  dispatcher.required = AllExperts(*own.checkpoint);
  dispatcher.registry = model->registry_.get();
  dispatcher.pool = model->pool_.get();
  dispatcher.row_format = kernels::RowFormatOf(own.checkpoint->expert_dtype());
  model->dispatcher_ = NewExpertDispatcher(std::move(dispatcher));
  return model;
}

absl::StatusOr<ServingModel::Stack*> ServingModel::StackFor(
    int max_draft_tokens) {
  Stack& stack = stacks_[max_draft_tokens];
  if (stack.runner != nullptr) return &stack;
  ModelRunner::Options options;
  options.checkpoint = options_.checkpoint;
  options.dispatcher = dispatcher_.get();
  options.pool = pool_.get();
  options.weights = options_.weights;
  options.max_draft_tokens = max_draft_tokens;
  options.progress = [this](int64_t done, int64_t total) {
    if (options_.progress) options_.progress("reading layers", done, total);
  };
  SY_ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> runner,
                      ModelRunner::Create(options));
  if (max_draft_tokens > 0) {
    SY_ASSIGN_OR_RETURN(stack.head, MtpHead::Create(options, runner.get()));
  }
  stack.runner = std::move(runner);
  return &stack;
}

absl::StatusOr<std::unique_ptr<ServingEngine>> ServingModel::NewEngine(
    const EngineSettings& settings) {
  SY_ASSIGN_OR_RETURN(Stack* const stack, StackFor(settings.max_draft_tokens));
  auto runner = std::make_unique<CountingRunner>(stack->runner.get());
  std::unique_ptr<metrics::Registry> registry = metrics::Registry::Create();
  auto metrics = std::make_unique<attention_worker::EngineMetrics>(
      registry.get(), "bench", context());
  Engine::Options options;
  options.runner = runner.get();
  options.metrics = metrics.get();
  options.pool = pool_.get();
  options.vocab_size = vocab_size();
  options.max_model_len = context();
  options.max_running_requests = settings.max_running_requests;
  options.max_queued_requests = settings.max_queued_requests;
  options.chunked_prefill_size = settings.chunked_prefill_size;
  options.state_memory_bytes = settings.state_memory_bytes;
  options.prefix_caching = settings.prefix_caching;
  options.mtp_head = stack->head.get();
  options.adaptive_drafts = settings.adaptive_drafts;
  SY_ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::Create(options));
  return std::make_unique<ServingEngine>(std::move(registry),
                                         std::move(metrics), std::move(runner),
                                         std::move(engine));
}

int64_t ServingModel::StateBytes(int max_draft_tokens, int64_t sequences,
                                 int64_t tokens, int64_t snapshots) const {
  const attention_worker::StateShape shape(checkpoint().config(),
                                           max_draft_tokens);
  // A page more for each: drafts, and the last page that a snapshot copies.
  return (sequences + snapshots) *
         (shape.Costs().BytesFor(tokens) + shape.PageBytes());
}

}  // namespace switchyard::bench
