// A window on the forward pass, for tests and tools.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_PROBE_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_PROBE_H_

#include <cstdint>
#include <functional>

namespace switchyard::attention_worker {

// Called after each named point of the forward pass with its rows; for tests
// and tools that compare with the reference. Points: "embedding", "layer"
// (residual stream after layer i), "mixer_out", "mlp_out", "gate_logits",
// "gate_indices" (as floats), "gate_weights", "final_hidden". `data` is [rows,
// width].
using Probe = std::function<void(const char* point, int layer, int64_t rows,
                                 int64_t width, const float* data)>;

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_PROBE_H_
