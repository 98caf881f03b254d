// The expert that every token goes to, scaled by a gate of its own.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_SHARED_EXPERT_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_SHARED_EXPERT_H_

#include <cstdint>

#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/layer_weights.h"

namespace switchyard::attention_worker {

// y [rows, H] = the shared expert's output for x [rows, H], unscaled, and
// scale [rows] = sigmoid(x shared_expert_gate^T).
void SharedExpert(const LayerContext& context, const MoeWeights& weights,
                  int64_t rows, const float* x, float* y, float* scale);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_SHARED_EXPERT_H_
