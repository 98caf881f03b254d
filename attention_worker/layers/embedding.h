// Token ids to rows of the residual stream.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_EMBEDDING_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_EMBEDDING_H_

#include <cstdint>

#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "kernels/matrix.h"

namespace switchyard::attention_worker {

// y[t] = embed_tokens[tokens[t]], widened exactly: [tokens, H].
// REQUIRES: tokens in [0, V).
void Embed(const LayerContext& context, const kernels::WeightView& embed_tokens,
           absl::Span<const int32_t> tokens, float* y);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_EMBEDDING_H_
