#include "attention_worker/layers/shared_expert.h"

#include "attention_worker/layers/dense_mlp.h"
#include "attention_worker/layers/mat_mul.h"
#include "kernels/math.h"

namespace switchyard::attention_worker {

void SharedExpert(const LayerContext& context, const MoeWeights& weights,
                  int64_t rows, const float* x, float* y, float* scale) {
  // Its gate goes along with the expert's own products.
  const MatMulJob gate = {weights.shared_expert_gate, x,
                          weights.shared_expert_gate.cols, scale,
                          /*y_stride=*/1};
  DenseMlp(context, weights.shared_expert, rows, x, y, &gate);
  for (int64_t t = 0; t < rows; ++t) scale[t] = kernels::Sigmoid(scale[t]);
}

}  // namespace switchyard::attention_worker
