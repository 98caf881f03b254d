#include "switchyard/logits/logits_command.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/local_expert_client.h"
#include "attention_worker/state/kv_dtype.h"
#include "attention_worker/state/sequence_state.h"
#include "base/check.h"
#include "base/compute_pool.h"
#include "base/status_macros.h"
#include "experts/expert_engine.h"
#include "kernels/kernel_table.h"
#include "metrics/registry.h"
#include "model/checkpoint.h"
#include "model/expert_set.h"
#include "switchyard/logits/npy_writer.h"

namespace switchyard {
namespace {

using attention_worker::ChunkResult;
using attention_worker::ModelRunner;
using attention_worker::SequenceState;
using attention_worker::StateMemory;

// A line on stderr once a second at most, and none in the first one.
class Progress {
 public:
  void Report(const char* doing, int64_t done, int64_t total,
              const char* unit) {
    const absl::Time now = absl::Now();
    if (now < next_) return;
    next_ = now + absl::Seconds(1);
    std::fprintf(stderr, "%s: %lld of %lld %s\n", doing,
                 static_cast<long long>(done), static_cast<long long>(total),
                 unit);
  }

 private:
  absl::Time next_ = absl::Now() + absl::Seconds(1);
};

constexpr int64_t kMegabyte = 1'000'000;

absl::Status CheckOptions(const LogitsOptions& options) {
  if (options.ids.empty()) {
    return absl::InvalidArgumentError(
        "no token ids: give one at least (--ids)");
  }
  if (options.out_path.empty()) {
    return absl::InvalidArgumentError("no file to write: give --out");
  }
  const int64_t tokens = static_cast<int64_t>(options.ids.size());
  if (options.prefill < 0 || options.prefill > tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("--prefill ", options.prefill, " of ", tokens,
                     " token ids: must be in [0, ", tokens, "]"));
  }
  if (options.threads < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--threads ", options.threads, ": must be positive, or 0 for all"));
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const LogitsOptions& options,
                      const model::ModelConfig& config) {
  for (size_t i = 0; i < options.ids.size(); ++i) {
    if (options.ids[i] < 0 || options.ids[i] >= config.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token id ", options.ids[i], " (number ", i, "): the vocabulary of ",
          options.model_dir, " is [0, ", config.vocab_size, ")"));
    }
  }
  if (static_cast<int64_t>(options.ids.size()) >
      config.max_position_embeddings) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.ids.size(), " token ids: the context of ", options.model_dir,
        " is ", config.max_position_embeddings, " (max_position_embeddings)"));
  }
  return absl::OkStatus();
}

// The experts that the main model needs; the MTP head's are not read.
model::ExpertSet MainExperts(const model::Checkpoint& checkpoint) {
  const model::ModelConfig& config = checkpoint.config();
  model::ExpertSet experts(checkpoint.num_expert_layers(), config.num_experts);
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    for (int e = 0; e < config.num_experts; ++e) experts.Insert(layer, e);
  }
  return experts;
}

absl::Status WriteLogits(const LogitsOptions& options, int64_t vocab_size,
                         ModelRunner* runner, Progress* progress) {
  absl::Span<const int32_t> rest = options.ids;
  const int64_t tokens = static_cast<int64_t>(rest.size());
  const attention_worker::StateShape& shape = runner->state_shape();
  SY_ASSIGN_OR_RETURN(
      const std::unique_ptr<StateMemory> memory,
      StateMemory::Create(shape, shape.Costs().BytesFor(tokens)));
  const std::unique_ptr<SequenceState> state =
      SequenceState::TryCreate(memory.get(), tokens);
  SY_CHECK(state != nullptr && state->TryGrow(tokens));
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<NpyWriter> writer,
                      NpyWriter::Create(options.out_path, tokens, vocab_size));
  size_t size = options.prefill == 0 ? rest.size() : options.prefill;
  while (!rest.empty()) {
    const attention_worker::SequenceChunk chunk{
        .state = state.get(),
        .tokens = rest.first(size),
        .logits = attention_worker::LogitsOf::kEveryToken};
    const ChunkResult result =
        std::move(runner->Step(absl::MakeConstSpan(&chunk, 1))[0]);
    SY_RETURN_IF_ERROR(result.status);
    SY_RETURN_IF_ERROR(writer->Append(result.logits));
    rest.remove_prefix(size);
    size = 1;
    progress->Report("computing", state->num_tokens, tokens, "tokens");
  }
  return writer->Finish();
}

}  // namespace

absl::Status RunLogits(const LogitsOptions& options) {
  SY_RETURN_IF_ERROR(CheckOptions(options));
  SY_RETURN_IF_ERROR(kernels::SelectKernels(options.isa));
  SY_ASSIGN_OR_RETURN(const model::Activations activations,
                      model::ParseActivations(options.activations));
  SY_ASSIGN_OR_RETURN(
      const attention_worker::KvCacheDType kv_cache_dtype,
      attention_worker::ParseKvCacheDType(options.kv_cache_dtype));
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<model::Checkpoint> checkpoint,
                      model::Checkpoint::Open(options.model_dir, activations));
  SY_RETURN_IF_ERROR(CheckIds(options, checkpoint->config()));

  Progress progress;
  const std::unique_ptr<ComputePool> pool = NewThreadPool(
      options.threads > 0 ? options.threads : AvailableCpus(), "compute");
  const std::unique_ptr<metrics::Registry> registry =
      metrics::Registry::Create();
  experts::ExpertEngine::Options engine_options;
  engine_options.checkpoint = checkpoint.get();
  engine_options.experts = MainExperts(*checkpoint);
  engine_options.pool = pool.get();
  engine_options.progress = [&progress](int64_t done, int64_t total) {
    progress.Report("reading experts", done / kMegabyte, total / kMegabyte,
                    "MB");
  };
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<experts::ExpertEngine> engine,
                      experts::ExpertEngine::Create(engine_options));
  attention_worker::ExpertDispatcherOptions dispatcher_options;
  dispatcher_options.clients = {
      std::make_shared<attention_worker::LocalExpertClient>(engine.get(),
                                                            registry.get())};
  dispatcher_options.required = engine_options.experts;
  dispatcher_options.registry = registry.get();
  const std::unique_ptr<attention_worker::ExpertDispatcher> dispatcher =
      NewExpertDispatcher(std::move(dispatcher_options));
  ModelRunner::Options runner_options;
  runner_options.checkpoint = checkpoint.get();
  runner_options.dispatcher = dispatcher.get();
  runner_options.pool = pool.get();
  runner_options.kv_dtype =
      attention_worker::KvDTypeFor(kv_cache_dtype, *checkpoint);
  runner_options.progress = [&progress](int64_t done, int64_t total) {
    progress.Report("reading layers", done / kMegabyte, total / kMegabyte,
                    "MB");
  };
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<ModelRunner> runner,
                      ModelRunner::Create(std::move(runner_options)));
  return WriteLogits(options, checkpoint->config().vocab_size, runner.get(),
                     &progress);
}

}  // namespace switchyard
