// The gate: which experts a token goes to, and with what weight.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_GATE_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_GATE_H_

#include <cstdint>

namespace switchyard::attention_worker {

// The `k` largest of `logits` [num_experts], in descending order, of equals the
// lower id first; and their softmax weights: over the chosen ones if
// `normalise` (norm_topk_prob: the same as renormalising a softmax over all),
// else over all. A NaN counts as the smallest. REQUIRES: 1 <= k <= num_experts.
void SelectExperts(const float* logits, int num_experts, int k, bool normalise,
                   int32_t* experts, float* weights);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_GATE_H_
