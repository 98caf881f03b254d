#include "attention_worker/layers/gated_attention.h"

#include <algorithm>
#include <vector>

#include "attention_worker/layers/mat_mul.h"
#include "attention_worker/layers/paged_attention.h"
#include "kernels/kv_rows.h"

namespace switchyard::attention_worker {
namespace {

std::vector<const LayerSequence*> SequenceOfRow(
    absl::Span<const LayerSequence> sequences, int64_t rows) {
  std::vector<const LayerSequence*> result(rows);
  for (const LayerSequence& sequence : sequences) {
    std::fill_n(result.begin() + sequence.first_row, sequence.num_rows,
                &sequence);
  }
  return result;
}

}  // namespace

void GatedAttention(const LayerContext& context,
                    const GatedAttentionWeights& weights, const RopeTable& rope,
                    absl::Span<const LayerSequence> sequences, int64_t rows,
                    const float* x, float* y) {
  const model::ModelConfig& config = *context.config;
  const kernels::KernelTable& kernels = *context.kernels;
  const int64_t hidden = config.hidden_size;
  const int64_t heads = config.num_attention_heads;
  const int64_t kv_heads = config.num_key_value_heads;
  const int64_t d = config.head_dim;
  const int64_t kv_width = kv_heads * d;
  const float eps = static_cast<float>(config.rms_norm_eps);

  const Scratch::Frame frame(context.scratch);
  float* const qg = context.scratch->Floats(rows * heads * 2 * d);
  float* const k = context.scratch->Floats(rows * kv_width);
  float* const v = context.scratch->Floats(rows * kv_width);
  const MatMulJob projections[] = {
      {weights.q_proj, x, hidden, qg, heads * 2 * d},
      {weights.k_proj, x, hidden, k, kv_width},
      {weights.v_proj, x, hidden, v, kv_width}};
  {
    const TimedPart timed(context.timer, StepPart::kProjections);
    MatMul(context, projections, rows);
  }

  const int64_t group = heads / kv_heads;
  float* const q = context.scratch->Floats(rows * heads * d);
  const std::vector<const LayerSequence*> sequence_of_row =
      SequenceOfRow(sequences, rows);
  ForEach(
      context, rows, 8 * (heads + kv_heads) * d,
      [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const auto normalise = [&](const float* in, absl::Span<const float> w,
                                     float* out) {
            kernels.rms_norm(in, w.data(), /*offset=*/1.0f, eps, d, out);
            kernels.rope(out, rope.cos(row), rope.sin(row), rope.half_dim());
          };
          for (int64_t h = 0; h < heads; ++h) {
            // [KV heads, rows, group, D]
            normalise(qg + (row * heads + h) * 2 * d, weights.q_norm,
                      q + ((h / group * rows + row) * group + h % group) * d);
          }
          const LayerSequence& sequence = *sequence_of_row[row];
          const KvLayer& kv = sequence.kv;
          const int64_t position =
              sequence.first_position + row - sequence.first_row;
          for (int64_t h = 0; h < kv_heads; ++h) {
            float* const key = k + row * kv_width + h * d;
            normalise(key, weights.k_norm, key);
            kernels::EncodeKvRow(kv.layout.dtype, key, d,
                                 kv.KeyAt(position, h));
            kernels::EncodeKvRow(kv.layout.dtype, v + row * kv_width + h * d, d,
                                 kv.ValueAt(position, h));
          }
        }
      });

  float* const mixed = context.scratch->Floats(rows * heads * d);
  PagedAttention(context, sequences, rows, q, mixed);
  ForEach(context, rows, 10 * heads * d, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * heads; i < end * heads; ++i) {
      const float* const gate = qg + (2 * i + 1) * d;
      kernels.sigmoid_mul(mixed + i * d, gate, d, mixed + i * d);
    }
  });
  const MatMulJob output[] = {{weights.o_proj, mixed, heads * d, y, hidden}};
  const TimedPart timed(context.timer, StepPart::kProjections);
  MatMul(context, output, rows);
}

}  // namespace switchyard::attention_worker
