// Runs a schedule with the dispatcher that attention workers use, and checks
// what must hold whatever happens.

#ifndef SWITCHYARD_TESTS_SIMULATION_SIMULATE_H_
#define SWITCHYARD_TESTS_SIMULATION_SIMULATE_H_

#include <cstdint>
#include <string>

#include "attention_worker/moe/expert_dispatcher.h"
#include "tests/simulation/schedule.h"

namespace switchyard::simulation {

struct Outcome {
  std::string violation;  // empty: none; else the first one
  uint64_t digest = 0;    // of all that was to be seen
  // What the schedule brought about, so that it can be seen to test something.
  int64_t calls = 0;
  int64_t hedges = 0;
  int64_t resent_pairs = 0;
  int64_t ejections = 0;
  int64_t distrusted = 0;
  int64_t late_replies = 0;
  int64_t failed_sequences = 0;
};

// What is checked, after every step and at the end:
//  - an output that is returned is the right one, and there is one for every
//    pair of a sequence that has not failed;
//  - a call goes only to a client in the set, and only for what it says it has;
//  - no more calls are hedged than the budget allows;
//  - a dispatch ends by the last of its deadlines;
//  - a sequence fails at its deadline, naming experts, and not if each of its
//    experts had a holder to which nothing happened meanwhile;
//  - nobody who computes rightly is distrusted, and whoever is gets no calls;
//  - when the faults are over, everything is served again.
// Wrong outputs may be returned only where nobody was asked for a second
// opinion.
Outcome Simulate(
    const Schedule& schedule,
    const attention_worker::ExpertDispatcherOptions::Faults& faults = {});

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_SIMULATE_H_
