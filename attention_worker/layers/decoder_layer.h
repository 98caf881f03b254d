// One layer of the stack: x += mixer(norm(x)); x += ffn(norm(x)).

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_DECODER_LAYER_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_DECODER_LAYER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/layer_weights.h"
#include "attention_worker/layers/rope_table.h"
#include "attention_worker/moe/expert_dispatcher.h"

namespace switchyard::attention_worker {

// Moves the residual stream x [rows, H] through layer `layer`, and the
// sequences' states on. `rope` has the rows' angles. Returns one status a
// sequence: not OK, if its experts could not be had; its rows then mean
// nothing.
std::vector<absl::Status> DecoderLayer(
    const LayerContext& context, const DecoderLayerWeights& weights, int layer,
    const RopeTable& rope, ExpertDispatcher* dispatcher,
    absl::Span<const LayerSequence> sequences, int64_t rows, float* x);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_DECODER_LAYER_H_
