#include "attention_worker/layers/mtp_head.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/layers/active_batch.h"
#include "attention_worker/layers/decoder_layer.h"
#include "attention_worker/layers/embedding.h"
#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/layer_weights.h"
#include "attention_worker/layers/lm_head.h"
#include "attention_worker/layers/mat_mul.h"
#include "attention_worker/layers/rope_table.h"
#include "attention_worker/layers/scratch.h"
#include "attention_worker/layers/weight_reader.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

class LocalMtpHead final : public MtpHead {
 public:
  LocalMtpHead(const ModelRunner::Options& options,
               const ModelRunner::SharedWeights& shared, MtpWeights weights,
               std::unique_ptr<model::WeightCopies> copies)
      : config_(options.checkpoint->config()),
        dispatcher_(options.dispatcher),
        copies_(std::move(copies)),
        shared_(shared),
        weights_(std::move(weights)),
        rope_(RopeTable::ForConfig(config_)) {
    context_.config = &config_;
    context_.kernels =
        options.kernels != nullptr ? options.kernels : &kernels::Kernels();
    context_.pool = options.pool;
    context_.scratch = &scratch_;
    context_.probe = options.probe;
    context_.timer = options.timer;
  }

  std::vector<MtpResult> Step(absl::Span<const MtpChunk> chunks) override {
    CheckChunks(chunks);
    std::vector<MtpResult> results(chunks.size());
    if (chunks.empty()) return results;
    const ComputePool::Active active(context_.pool);
    ActiveBatch batch(config_.hidden_size, &rope_);
    for (size_t i = 0; i < chunks.size(); ++i) {
      batch.Add(i, static_cast<int64_t>(chunks[i].next_tokens.size()),
                chunks[i].state->num_mtp_pairs, chunks[i].deadline);
    }
    batch.Finish();
    JoinInputs(chunks, &batch);
    for (size_t i = 0; i < chunks.size(); ++i) {
      const SequenceState& state = *chunks[i].state;
      batch.sequences()[i].kv = {state.pages(), state.shape().kv,
                                 state.shape().num_full_layers};
    }
    const std::vector<absl::Status> status = DecoderLayer(
        context_, weights_.layer, config_.num_hidden_layers, rope_, dispatcher_,
        batch.sequences(), batch.rows(), batch.residual());
    for (size_t i = 0; i < chunks.size(); ++i) {
      results[i].status = status[i];
    }
    batch.DropFailed(status);
    if (batch.rows() > 0) Finish(chunks, &batch, &results);
    return results;
  }

 private:
  void CheckChunks(absl::Span<const MtpChunk> chunks) const {
    for (const MtpChunk& chunk : chunks) {
      const int64_t pairs = static_cast<int64_t>(chunk.next_tokens.size());
      const SequenceState& state = *chunk.state;
      SY_CHECK(state.shape().drafts());
      SY_CHECK(pairs >= 1);
      SY_CHECK(static_cast<int64_t>(chunk.hidden.size()) ==
               pairs * config_.hidden_size);
      SY_CHECK(state.num_mtp_pairs + pairs <= state.room());
      for (int32_t token : chunk.next_tokens) {
        SY_CHECK(token >= 0 && token < config_.vocab_size);
      }
    }
  }

  // residual = [norm(embedding) | norm(hidden)] fc^T.
  void JoinInputs(absl::Span<const MtpChunk> chunks, ActiveBatch* batch) {
    const int64_t hidden = config_.hidden_size;
    const Scratch::Frame frame(&scratch_);
    float* const embedded = scratch_.Floats(batch->rows() * hidden);
    float* const previous = scratch_.Floats(batch->rows() * hidden);
    for (size_t i = 0; i < chunks.size(); ++i) {
      const int64_t first = batch->sequences()[i].first_row * hidden;
      Embed(context_, shared_.embed_tokens, chunks[i].next_tokens,
            embedded + first);
      ZeroCentredRmsNorm(context_, chunks[i].hidden.data(),
                         weights_.pre_fc_norm_hidden,
                         batch->sequences()[i].num_rows, previous + first);
    }
    ZeroCentredRmsNorm(context_, embedded, weights_.pre_fc_norm_embedding,
                       batch->rows(), embedded);
    float* const joined = scratch_.Floats(batch->rows() * 2 * hidden);
    for (int64_t t = 0; t < batch->rows(); ++t) {
      std::memcpy(joined + 2 * t * hidden, embedded + t * hidden,
                  hidden * sizeof(float));
      std::memcpy(joined + (2 * t + 1) * hidden, previous + t * hidden,
                  hidden * sizeof(float));
    }
    const MatMulJob fc[] = {
        {weights_.fc, joined, 2 * hidden, batch->residual(), hidden}};
    MatMul(context_, fc, batch->rows());
  }

  void Finish(absl::Span<const MtpChunk> chunks, ActiveBatch* batch,
              std::vector<MtpResult>* results) {
    const int64_t hidden = config_.hidden_size;
    std::vector<LogitsRow> logits_rows;
    for (size_t s = 0; s < batch->sequences().size(); ++s) {
      const LayerSequence& sequence = batch->sequences()[s];
      const MtpChunk& chunk = chunks[batch->index(s)];
      MtpResult& result = (*results)[batch->index(s)];
      chunk.state->num_mtp_pairs += sequence.num_rows;
      result.hidden.resize(sequence.num_rows * hidden);
      ZeroCentredRmsNorm(
          context_, batch->residual() + sequence.first_row * hidden,
          weights_.norm, sequence.num_rows, result.hidden.data());
      if (chunk.logits == LogitsOf::kNothing) continue;
      const int64_t wanted =
          chunk.logits == LogitsOf::kEveryToken ? sequence.num_rows : 1;
      result.logits.resize(wanted * config_.vocab_size);
      for (int64_t i = 0; i < wanted; ++i) {
        logits_rows.push_back(
            {&result.hidden[(sequence.num_rows - wanted + i) * hidden],
             &result.logits[i * config_.vocab_size]});
      }
    }
    LmHead(context_, shared_.lm_head, logits_rows);
  }

  const model::ModelConfig config_;
  ExpertDispatcher* const dispatcher_;
  // What weights_ are views of, unless they are mapped.
  const std::unique_ptr<const model::WeightCopies> copies_;
  const ModelRunner::SharedWeights shared_;
  const MtpWeights weights_;
  RopeTable rope_;
  Scratch scratch_;
  LayerContext context_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MtpHead>> MtpHead::Create(
    ModelRunner::Options options, const ModelRunner* runner) {
  SY_CHECK(runner != nullptr);
  SY_CHECK(options.checkpoint != nullptr);
  SY_CHECK(options.dispatcher != nullptr);
  SY_CHECK(options.pool != nullptr);
  if (!options.checkpoint->has_mtp()) {
    return absl::NotFoundError(
        absl::StrCat(options.checkpoint->directory(),
                     " has no mtp.* tensors: this model cannot draft"));
  }
  WeightReader reader(options.checkpoint, options.weights);
  SY_ASSIGN_OR_RETURN(MtpWeights weights, FindMtpWeights(&reader));
  SY_RETURN_IF_ERROR(reader.ReadAll(options.pool, options.progress));
  return std::make_unique<LocalMtpHead>(options, runner->shared_weights(),
                                        std::move(weights),
                                        reader.TakeCopies());
}

}  // namespace switchyard::attention_worker
