// The logprobs of a prompt's own tokens.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_PROMPT_SCORES_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_PROMPT_SCORES_H_

#include <cstdint>

#include "absl/types/span.h"
#include "attention_worker/core/live_sequence.h"
#include "base/compute_pool.h"

namespace switchyard::attention_worker {

// `logits` [rows, V] are those of the sequence's tokens from `begin` to the end
// of what its state has read, each of which tells of the token behind it. Gives
// the sink those of the prompt that they tell of, from next_prompt_score on,
// with the logprobs that sampling gives of the same row. The rows are shared
// out over the pool. REQUIRES: next_prompt_score > begin.
void GivePromptScores(LiveSequence* sequence, int64_t begin,
                      absl::Span<const float> logits, ComputePool* pool);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_PROMPT_SCORES_H_
