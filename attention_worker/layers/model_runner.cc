#include "attention_worker/layers/model_runner.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "attention_worker/layers/active_batch.h"
#include "attention_worker/layers/decoder_layer.h"
#include "attention_worker/layers/embedding.h"
#include "attention_worker/layers/gated_delta_net.h"
#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/layer_weights.h"
#include "attention_worker/layers/lm_head.h"
#include "attention_worker/layers/rope_table.h"
#include "attention_worker/layers/scratch.h"
#include "attention_worker/layers/weight_reader.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

bool NoneFailed(absl::Span<const absl::Status> status) {
  return std::all_of(status.begin(), status.end(),
                     [](const absl::Status& s) { return s.ok(); });
}

class LocalModelRunner final : public ModelRunner {
 public:
  LocalModelRunner(const Options& options, ModelWeights weights,
                   std::unique_ptr<model::WeightCopies> copies)
      : config_(options.checkpoint->config()),
        dispatcher_(options.dispatcher),
        copies_(std::move(copies)),
        weights_(std::move(weights)),
        shape_(config_, options.max_draft_tokens, options.kv_dtype),
        rope_(RopeTable::ForConfig(config_)) {
    context_.config = &config_;
    context_.kernels =
        options.kernels != nullptr ? options.kernels : &kernels::Kernels();
    context_.pool = options.pool;
    context_.scratch = &scratch_;
    context_.probe = options.probe;
    context_.timer = options.timer;
  }

  std::vector<ChunkResult> Step(
      absl::Span<const SequenceChunk> chunks) override {
    CheckChunks(chunks);
    std::vector<ChunkResult> results(chunks.size());
    if (chunks.empty()) return results;
    const ComputePool::Active active(context_.pool);
    const int64_t hidden = config_.hidden_size;
    ActiveBatch batch(hidden, &rope_);
    for (size_t i = 0; i < chunks.size(); ++i) {
      batch.Add(i, static_cast<int64_t>(chunks[i].tokens.size()),
                chunks[i].state->num_tokens, chunks[i].deadline);
    }
    batch.Finish();
    for (size_t i = 0; i < chunks.size(); ++i) {
      Embed(context_, weights_.embed_tokens, chunks[i].tokens,
            batch.residual() + batch.sequences()[i].first_row * hidden);
    }
    context_.Report("embedding", 0, batch.rows(), hidden, batch.residual());
    RunLayers(chunks, &batch, &results);
    if (batch.rows() > 0) Finish(chunks, &batch, &results);
    return results;
  }

  std::vector<float> LastLogits(SequenceState* state) override {
    SY_CHECK(state->health == StateHealth::kClean && state->num_tokens >= 1);
    std::vector<float> logits(config_.vocab_size);
    const LogitsRow row[] = {{state->last_hidden(), logits.data()}};
    LmHead(context_, weights_.lm_head, row);
    return logits;
  }

  void Settle(absl::Span<SequenceState* const> states) override {
    std::vector<LayerSequence> sequences;
    std::vector<SequenceState*> pending;
    for (SequenceState* const state : states) {
      SY_CHECK(state->health == StateHealth::kClean);
      if (state->pending_tokens > 0) pending.push_back(state);
    }
    if (pending.empty()) return;
    const ComputePool::Active active(context_.pool);
    sequences.resize(pending.size());
    int linear = 0;
    for (const DecoderLayerWeights& layer : weights_.layers) {
      const auto* weights = std::get_if<GatedDeltaNetWeights>(&layer.mixer);
      if (weights == nullptr) continue;
      for (size_t i = 0; i < pending.size(); ++i) {
        SetLinear(pending[i], linear, &sequences[i]);
      }
      ++linear;
      TakeInPending(context_, *weights, sequences);
    }
    for (SequenceState* const state : pending) state->pending_tokens = 0;
  }

  const StateShape& state_shape() const override { return shape_; }
  SharedWeights shared_weights() const override {
    return {weights_.embed_tokens, weights_.lm_head};
  }

 private:
  void CheckChunks(absl::Span<const SequenceChunk> chunks) const {
    for (const SequenceChunk& chunk : chunks) {
      const SequenceState& state = *chunk.state;
      SY_CHECK(state.health == StateHealth::kClean);
      SY_CHECK(!chunk.tokens.empty());
      const int64_t size = static_cast<int64_t>(chunk.tokens.size());
      SY_CHECK(state.num_tokens + size <=
               std::min(state.max_tokens(), state.room()));
      SY_CHECK(chunk.provisional_tokens >= 0 &&
               chunk.provisional_tokens <= shape_.max_draft_tokens);
      const int64_t certain = size - chunk.provisional_tokens;
      SY_CHECK(certain >= 1);
      for (const SnapshotPoint& point : chunk.snapshots) {
        SY_CHECK(point.after_tokens >= 1 && point.after_tokens <= certain);
      }
      for (int32_t token : chunk.tokens) {
        SY_CHECK(token >= 0 && token < config_.vocab_size);
      }
    }
  }

  void RunLayers(absl::Span<const SequenceChunk> chunks, ActiveBatch* batch,
                 std::vector<ChunkResult>* results) {
    int full = 0, linear = 0;  // layers of either kind so far
    std::vector<std::vector<LayerSequence::LayerSnapshot>> snapshots(
        chunks.size());
    for (int i = 0; i < config_.num_hidden_layers && batch->rows() > 0; ++i) {
      const bool is_full = std::holds_alternative<GatedAttentionWeights>(
          weights_.layers[i].mixer);
      for (size_t s = 0; s < batch->sequences().size(); ++s) {
        SequenceState* const state = chunks[batch->index(s)].state;
        LayerSequence& sequence = batch->sequences()[s];
        if (is_full) {
          sequence.kv = {state->pages(), shape_.kv, full};
          continue;
        }
        SetLinear(state, linear, &sequence);
        sequence.provisional_rows = chunks[batch->index(s)].provisional_tokens;
        snapshots[s].clear();
        for (const SnapshotPoint& point : chunks[batch->index(s)].snapshots) {
          snapshots[s].push_back(
              {point.after_tokens,
               point.fixed + shape_.RecurrentInFixed(linear),
               point.fixed + shape_.ConvTailInFixed(linear)});
        }
        sequence.snapshots = snapshots[s];
      }
      ++(is_full ? full : linear);
      const std::vector<absl::Status> status =
          DecoderLayer(context_, weights_.layers[i], i, rope_, dispatcher_,
                       batch->sequences(), batch->rows(), batch->residual());
      if (NoneFailed(status)) continue;
      for (size_t s = 0; s < status.size(); ++s) {
        if (status[s].ok()) continue;
        (*results)[batch->index(s)].status = status[s];
        chunks[batch->index(s)].state->health = StateHealth::kTorn;
      }
      batch->DropFailed(status);
    }
  }

  // What linear-attention layer `index` of the state gives to the layer.
  static void SetLinear(SequenceState* state, int index,
                        LayerSequence* sequence) {
    sequence->recurrent = state->recurrent(index);
    sequence->conv_tail = state->conv_tail(index);
    sequence->draft_rows = state->draft_rows(index);
    sequence->pending_rows = state->pending_tokens;
  }

  // The final norm, what was asked of it, and the states' new lengths.
  void Finish(absl::Span<const SequenceChunk> chunks, ActiveBatch* batch,
              std::vector<ChunkResult>* results) {
    const int64_t hidden = config_.hidden_size;
    const Scratch::Frame frame(&scratch_);
    float* const normed = scratch_.Floats(batch->rows() * hidden);
    ZeroCentredRmsNorm(context_, batch->residual(), weights_.norm,
                       batch->rows(), normed);
    context_.Report("final_hidden", config_.num_hidden_layers, batch->rows(),
                    hidden, normed);
    std::vector<LogitsRow> logits_rows;
    for (size_t s = 0; s < batch->sequences().size(); ++s) {
      const LayerSequence& sequence = batch->sequences()[s];
      const SequenceChunk& chunk = chunks[batch->index(s)];
      ChunkResult& result = (*results)[batch->index(s)];
      const int64_t certain = sequence.num_rows - chunk.provisional_tokens;
      chunk.state->num_tokens += certain;
      chunk.state->pending_tokens = 0;
      const float* const rows = normed + sequence.first_row * hidden;
      const float* const rows_end = rows + sequence.num_rows * hidden;
      std::copy_n(rows + (certain - 1) * hidden, hidden,
                  chunk.state->last_hidden());
      for (const SnapshotPoint& point : chunk.snapshots) {
        std::copy_n(rows + (point.after_tokens - 1) * hidden, hidden,
                    point.fixed + shape_.HiddenInFixed());
      }
      if (chunk.want_hidden) result.hidden.assign(rows, rows_end);
      if (chunk.logits == LogitsOf::kNothing) continue;
      const float* row =
          chunk.logits == LogitsOf::kEveryToken ? rows : rows_end - hidden;
      result.logits.resize((rows_end - row) / hidden * config_.vocab_size);
      float* logits = result.logits.data();
      for (; row != rows_end; row += hidden, logits += config_.vocab_size) {
        logits_rows.push_back({row, logits});
      }
    }
    LmHead(context_, weights_.lm_head, logits_rows);
  }

  const model::ModelConfig config_;
  ExpertDispatcher* const dispatcher_;
  // What weights_ are views of, unless they are mapped.
  const std::unique_ptr<const model::WeightCopies> copies_;
  const ModelWeights weights_;
  const StateShape shape_;
  RopeTable rope_;
  Scratch scratch_;
  LayerContext context_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Create(
    Options options) {
  SY_CHECK(options.checkpoint != nullptr);
  SY_CHECK(options.dispatcher != nullptr);
  SY_CHECK(options.pool != nullptr);
  WeightReader reader(options.checkpoint, options.weights);
  SY_ASSIGN_OR_RETURN(ModelWeights weights, FindModelWeights(&reader));
  SY_RETURN_IF_ERROR(reader.ReadAll(options.pool, options.progress));
  return std::make_unique<LocalModelRunner>(options, std::move(weights),
                                            reader.TakeCopies());
}

}  // namespace switchyard::attention_worker
