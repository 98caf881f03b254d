// Runs the MTP head: keeps its KV cache up with the model, and chains drafts.
//
// Above: core/step_loop.h says for whom, and how deep; what becomes of the
// drafts is verified there, in the next step.
// Below: layers/mtp_head.h.

#ifndef SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_DRAFTER_H_
#define SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_DRAFTER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/layers/mtp_head.h"
#include "attention_worker/sampling/output_constraint.h"
#include "attention_worker/sampling/sampler.h"
#include "attention_worker/state/sequence_state.h"
#include "base/compute_pool.h"

namespace switchyard::attention_worker {

// The true pairs that a sequence's MTP cache lacks, and how many tokens to
// draft behind them. Nothing is owned.
struct DraftJob {
  SequenceState* state = nullptr;         // with room for pairs and drafts
  absl::Span<const float> hidden;         // [pairs, H], as MtpChunk
  absl::Span<const int32_t> next_tokens;  // [pairs]; >= 1
  int depth = 0;                          // tokens to draft
  const SamplingParams* params = nullptr;
  TokenHistory* history = nullptr;
  // Of the sequence's output; null: none. As before afterwards.
  OutputConstraint* constraint = nullptr;
  int64_t position = 0;  // of the first token to be drafted
};

// Not thread-safe: of the step thread.
class Drafter {
 public:
  // Neither is owned; both outlive this. `pool`: the head's.
  Drafter(MtpHead* head, ComputePool* pool) : head_(head), pool_(pool) {}

  // One result each: up to `depth` tokens; fewer if the head's experts could
  // not be had before `deadline` (then `status` tells why: drafts are never
  // waited for longer). A drafted token is chosen as the sequence's own would
  // be, with the same numbers drawn, so that it is right as often as the head's
  // distribution is the model's. Every state whose pairs were read has moved on
  // by them.
  struct Result {
    absl::Status status;
    std::vector<int32_t> drafts;
  };
  std::vector<Result> Run(absl::Span<const DraftJob> jobs, absl::Time deadline);

 private:
  MtpHead* const head_;
  ComputePool* const pool_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_DRAFTER_H_
