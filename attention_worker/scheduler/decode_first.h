// Every decoding sequence takes part in every step; prompts fill the rest.
//
// Keeps the time between tokens flat while prompts come in. Who is let in next:
// the best priority; of that, the client with the fewest running; of that, the
// first that came. It is not overtaken if it does not fit: a long prompt does
// not wait for ever behind short ones. Prompts that are being read share the
// step's prompt tokens: those of a better priority come first; clients get the
// same; a client's prompts get the same. So a short prompt is through soon even
// behind a very long one, and behind a hundred of somebody else's; what one
// leaves over goes to the others.
//
// When generated tokens outgrow the memory budget, the running sequence of the
// worst priority, the youngest of those, gives its state back and waits. Its
// tokens are known, so it is read again later, to the same bits; nothing is
// lost but time. Nobody gives a state back for a better priority's sake.

#ifndef SWITCHYARD_ATTENTION_WORKER_SCHEDULER_DECODE_FIRST_H_
#define SWITCHYARD_ATTENTION_WORKER_SCHEDULER_DECODE_FIRST_H_

#include "attention_worker/scheduler/policy.h"

namespace switchyard::attention_worker {

class DecodeFirst final : public SchedulingPolicy {
 public:
  StepPlan Plan(absl::Span<const SequenceView> sequences,
                const StepBudget& budget) const override;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SCHEDULER_DECODE_FIRST_H_
