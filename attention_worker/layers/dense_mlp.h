// SwiGLU (Shazeer 2020): (silu(x gate^T) * (x up^T)) down^T.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_DENSE_MLP_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_DENSE_MLP_H_

#include <cstdint>

#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/layer_weights.h"
#include "attention_worker/layers/mat_mul.h"

namespace switchyard::attention_worker {

// y = mlp(x); x and y [rows, H]. `beside`, if given, is another product of the
// same rows, computed in the first of the two loops.
void DenseMlp(const LayerContext& context, const DenseMlpWeights& weights,
              int64_t rows, const float* x, float* y,
              const MatMulJob* beside = nullptr);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_DENSE_MLP_H_
