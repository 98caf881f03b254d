// SwiGLU (Shazeer 2020): (silu(x gate^T) * (x up^T)) down^T.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_DENSE_MLP_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_DENSE_MLP_H_

#include <cstdint>

#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/layer_weights.h"

namespace switchyard::attention_worker {

// y = mlp(x); x and y [rows, H].
void DenseMlp(const LayerContext& context, const DenseMlpWeights& weights,
              int64_t rows, const float* x, float* y);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_DENSE_MLP_H_
