// Every decoding sequence takes part in every step; prompts fill the rest.
//
// Keeps the time between tokens flat while prompts come in. Prompts are
// admitted strictly in order of arrival: a long one is not overtaken for ever
// by short ones. Those that are being read share the step's prompt tokens
// evenly, so that a short prompt is through soon even behind a very long one;
// what a short one leaves over goes to the others.
//
// When generated tokens outgrow the memory budget, the youngest running
// sequence gives its state back and waits at its old place in the queue. Its
// tokens are known, so it is read again later, to the same bits; nothing is
// lost but time.

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
