// One generation in progress, as the scheduler sees it: counts, no tokens.

#ifndef SWITCHYARD_ATTENTION_WORKER_SCHEDULER_SEQUENCE_H_
#define SWITCHYARD_ATTENTION_WORKER_SCHEDULER_SEQUENCE_H_

#include <cstdint>

namespace switchyard::attention_worker {

// Moves: kWaiting -> kPrefill -> kDecoding -> kFinished; any other -> kFinished
// (cancelled, expired, failed); kPrefill, kDecoding -> kWaiting (preempted).
// "Holds a state" means a SequenceState, and its bytes of the budget.
enum class SequencePhase {
  kWaiting,   // accepted; holds no state, nothing is computed
  kPrefill,   // holds a state; known tokens are still to be read
  kDecoding,  // holds a state; the one token not yet read is the last
  kFinished,  // state given back; the last word has been said
};

// A value: one line of what a policy looks at.
struct SequenceView {
  SequencePhase phase = SequencePhase::kWaiting;
  int64_t known_tokens = 0;     // prompt and output so far
  int64_t computed_tokens = 0;  // of those, how many the state has read
  int64_t draft_tokens = 0;     // guesses that are read with the last known one
  int32_t priority = 0;         // lower goes first
  uint64_t client = 0;          // among whom to be fair

  int64_t remaining_tokens() const { return known_tokens - computed_tokens; }
  bool holds_state() const {
    return phase == SequencePhase::kPrefill ||
           phase == SequencePhase::kDecoding;
  }
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SCHEDULER_SEQUENCE_H_
