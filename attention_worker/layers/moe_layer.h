// The mixture of experts of one layer (Shazeer et al. 2017): gate, dispatch,
// shared expert meanwhile, combine.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_MOE_LAYER_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_MOE_LAYER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/layer_weights.h"
#include "attention_worker/moe/expert_dispatcher.h"

namespace switchyard::attention_worker {

// y [rows, H] = moe(x [rows, H]) of layer `layer`. Returns one status a
// sequence; the rows of those that are not OK mean nothing.
//
// A token's sum runs in the order of its gate, largest weight first, the shared
// expert last: an order that the token alone decides, not who holds the experts
// or answers first (docs/decisions/0060-order-of-combining.md).
std::vector<absl::Status> MoeLayer(const LayerContext& context,
                                   const MoeWeights& weights, int layer,
                                   ExpertDispatcher* dispatcher,
                                   absl::Span<const LayerSequence> sequences,
                                   int64_t rows, const float* x, float* y);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_MOE_LAYER_H_
