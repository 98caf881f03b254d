// Softmax attention with normalised and rotated queries and keys, grouped heads
// (Ainslie et al. 2023), and an output gate: the full_attention layers.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_GATED_ATTENTION_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_GATED_ATTENTION_H_

#include <cstdint>

#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/layer_weights.h"
#include "attention_worker/layers/rope_table.h"

namespace switchyard::attention_worker {

// y = attention(x) for x [rows, H], already normalised; y [rows, H]. Appends
// the rows' keys and values to their sequences' caches.
void GatedAttention(const LayerContext& context,
                    const GatedAttentionWeights& weights, const RopeTable& rope,
                    absl::Span<const LayerSequence> sequences, int64_t rows,
                    const float* x, float* y);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_GATED_ATTENTION_H_
