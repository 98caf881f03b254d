// What happens in a simulated world: made from a seed, printed, made smaller.

#ifndef SWITCHYARD_TESTS_SIMULATION_SCHEDULE_H_
#define SWITCHYARD_TESTS_SIMULATION_SCHEDULE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "model/expert_set.h"

namespace switchyard::simulation {

struct Event {
  enum class Kind {
    kKill,      // argument: microseconds until it is seen
    kStart,     // another process; argument: its holdings
    kHang,      // SIGSTOP
    kGoOn,      // SIGCONT
    kSlow,      // argument: how many times slower
    kFast,      // as it was at first
    kHoldings,  // argument: the new ones
    kRefuse,    // argument: so many calls fail
    kWrong,     // a flipped bit in its memory
    kLeave,     // out of the set of clients
    kJoin,      // back into it
  };

  absl::Duration at;  // after the beginning
  Kind kind = Kind::kKill;
  int worker = 0;
  int64_t argument = 0;
};

// A value: the same one gives the same run, to the last bit.
struct Schedule {
  uint64_t seed = 0;  // of everything below that is not written out
  int num_workers = 3;
  int num_layers = 2;
  int num_experts = 8;
  int experts_per_row = 3;
  int replicas = 2;  // holders of each expert at first
  int num_steps = 20;
  int64_t max_rows = 3;
  bool fallback = false;
  double verify_fraction = 0;
  int join_probes = 0;
  double hedge_burst = 4;
  std::vector<Event> events;

  // Some worker computes wrongly at some time.
  bool has_wrong() const;
};

Schedule ScheduleOf(uint64_t seed);

// Of a worker at first, and what an event's argument means.
model::ExpertSet FirstHoldings(const Schedule& schedule, int worker);
model::ExpertSet HoldingsOf(const Schedule& schedule, int worker,
                            int64_t argument);

// One line a fact: for people.
std::string Describe(const Schedule& schedule);

// The smallest schedule found by leaving things out of `schedule` that still
// `fails`. Fewer than `max_runs` calls of it.
Schedule Shrink(const Schedule& schedule,
                const std::function<bool(const Schedule&)>& fails,
                int max_runs = 2000);

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_SCHEDULE_H_
