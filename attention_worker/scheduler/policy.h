// What goes into the next step. One file per policy in this folder; what a plan
// says is done in core/.

#ifndef SWITCHYARD_ATTENTION_WORKER_SCHEDULER_POLICY_H_
#define SWITCHYARD_ATTENTION_WORKER_SCHEDULER_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "attention_worker/scheduler/sequence.h"
#include "attention_worker/state/state_costs.h"

namespace switchyard::attention_worker {

// What may be spent. A sequence that holds a state costs what all its known
// tokens take: what it has read and what it is about to read. So a prompt, once
// admitted, never lacks memory; only tokens that are generated later make a
// state grow.
struct StepBudget {
  int64_t prefill_tokens = 0;  // prompt tokens a step, all sequences
  int64_t max_running = 0;     // sequences that hold a state
  int64_t state_bytes = 0;     // of all states together
  StateCosts costs;            // of one state

  int64_t BytesFor(const SequenceView& sequence) const {
    return costs.BytesFor(sequence.known_tokens + sequence.draft_tokens);
  }
};

// `sequence` is an index into the span that Plan() was given.
struct StepEntry {
  size_t sequence = 0;
  // 1 if decoding (with its drafts), else the size of the prompt chunk.
  int64_t num_tokens = 0;

  friend bool operator==(const StepEntry&, const StepEntry&) = default;
};

// A value, to be printed, compared and carried out. In order: states of
// `preempt` are given back, `admit` get one, `entries` are computed.
struct StepPlan {
  std::vector<size_t> preempt;     // hold a state; become kWaiting
  std::vector<size_t> admit;       // kWaiting; become kPrefill
  std::vector<StepEntry> entries;  // ascending by sequence

  std::string DebugString() const;
  friend bool operator==(const StepPlan&, const StepPlan&) = default;
};

// Called by the step thread alone. Decisions depend on the arguments only: the
// same input gives the same plan.
class SchedulingPolicy {
 public:
  virtual ~SchedulingPolicy() = default;

  // `sequences`: all that are not finished, in order of arrival. Each of them
  // fits into budget.state_bytes when it is alone (the engine refuses others).
  // Promises: what holds a state after the plan costs no more than
  // budget.state_bytes and is no more than budget.max_running; prompt tokens
  // are no more than budget.prefill_tokens; of those that then hold a state the
  // oldest with the best priority is in `entries`, and if none held one, one of
  // the best priority is let in (so that every sequence ends at some time,
  // unless others with a better priority keep coming).
  virtual StepPlan Plan(absl::Span<const SequenceView> sequences,
                        const StepBudget& budget) const = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SCHEDULER_POLICY_H_
