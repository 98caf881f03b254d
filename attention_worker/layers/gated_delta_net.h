// The gated delta rule (Yang, Kautz, Hatamizadeh 2024) with a short causal
// convolution before it and a gated norm behind it: the linear_attention
// layers.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_GATED_DELTA_NET_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_GATED_DELTA_NET_H_

#include <cstdint>

#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/layer_weights.h"

namespace switchyard::attention_worker {

// y = deltanet(x) for x [rows, H], already normalised; y [rows, H]. Moves the
// sequences' recurrent states and convolution tails on by their rows.
//
// The recurrence runs token by token, never in the chunked form, so a token's
// result does not depend on how its prompt was cut
// (docs/decisions/0061-stepwise-delta-rule.md).
void GatedDeltaNet(const LayerContext& context,
                   const GatedDeltaNetWeights& weights,
                   absl::Span<const LayerSequence> sequences, int64_t rows,
                   const float* x, float* y);

// Moves the states on by their pending rows alone. The sequences have no rows.
void TakeInPending(const LayerContext& context,
                   const GatedDeltaNetWeights& weights,
                   absl::Span<const LayerSequence> sequences);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_GATED_DELTA_NET_H_
