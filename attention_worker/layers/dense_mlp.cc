#include "attention_worker/layers/dense_mlp.h"

namespace switchyard::attention_worker {

void DenseMlp(const LayerContext& context, const DenseMlpWeights& weights,
              int64_t rows, const float* x, float* y, const MatMulJob* beside) {
  const int64_t hidden = weights.gate_proj.cols;
  const int64_t inner = weights.gate_proj.rows;
  const Scratch::Frame frame(context.scratch);
  float* const gate = context.scratch->Floats(rows * inner);
  float* const up = context.scratch->Floats(rows * inner);
  const MatMulJob inputs[] = {{weights.gate_proj, x, hidden, gate, inner},
                              {weights.up_proj, x, hidden, up, inner},
                              beside != nullptr ? *beside : MatMulJob{}};
  MatMul(context, absl::MakeConstSpan(inputs, beside != nullptr ? 3 : 2), rows);
  // An exponential costs about ten multiply-adds.
  ForEach(context, rows, 10 * inner, [&](int64_t begin, int64_t end) {
    context.kernels->silu_mul(gate + begin * inner, up + begin * inner,
                              (end - begin) * inner, gate + begin * inner);
  });
  const MatMulJob output[] = {{weights.down_proj, gate, inner, y, hidden}};
  MatMul(context, output, rows);
}

}  // namespace switchyard::attention_worker
