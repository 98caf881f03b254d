// Softmax attention over a paged KV cache.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_PAGED_ATTENTION_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_PAGED_ATTENTION_H_

#include <cstdint>

#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"

namespace switchyard::attention_worker {

// outputs [rows, heads, D] = softmax(q k^T / sqrt(D)) v, causal: a row sees its
// sequence's keys up to its own, which are in the cache already. queries are
// [KV heads, rows, heads of a KV head, D], so that all that meet the same keys
// lie together.
//
// Bits. The keys are cut into spans of 512 positions, counted from the
// sequence's begin. Of each span by itself
//   score_j = dot(q, k_j) * (1 / sqrt(D));    m = max score_j
//   p_j = exp(score_j - m);    l = sum p_j;    o = sum p_j v_j, j ascending
// (kernel_contracts.h), and then from the first span to the last what has the
// smaller maximum is scaled by exp(smaller - greater) and added, fused, to the
// other, in l as in o; where they are equal, the later to the earlier. The
// output is o * (1 / l). So a token's bits depend on its own query and prefix
// alone: not on how a prompt was cut, on the batch, or on who computed what.
void PagedAttention(const LayerContext& context,
                    absl::Span<const LayerSequence> sequences, int64_t rows,
                    const float* queries, float* outputs);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_PAGED_ATTENTION_H_
