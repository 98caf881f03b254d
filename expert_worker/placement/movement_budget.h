// How many bytes may be loaded that nobody needs, but that make things faster.

#ifndef SWITCHYARD_EXPERT_WORKER_PLACEMENT_MOVEMENT_BUDGET_H_
#define SWITCHYARD_EXPERT_WORKER_PLACEMENT_MOVEMENT_BUDGET_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace switchyard::expert_worker {

// A token bucket of bytes: empty at first, filled by so many a minute, holds no
// more than those of one minute, or than one thing that is larger than that.
// One thread.
class MovementBudget {
 public:
  // 0 bytes: nothing may ever be loaded.
  MovementBudget(int64_t bytes_per_minute, absl::Time now)
      : bytes_per_minute_(static_cast<double>(bytes_per_minute)), time_(now) {}

  // False, and nothing taken, if there are not so many. `now` never falls.
  bool Take(int64_t bytes, absl::Time now) {
    const double wanted = static_cast<double>(bytes);
    level_ = std::min(
        std::max(bytes_per_minute_, wanted),
        level_ + bytes_per_minute_ *
                     absl::FDivDuration(now - time_, absl::Minutes(1)));
    time_ = now;
    if (level_ < wanted) return false;
    level_ -= wanted;
    return true;
  }

 private:
  const double bytes_per_minute_;
  double level_ = 0;
  absl::Time time_;  // when level_ was so
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_PLACEMENT_MOVEMENT_BUDGET_H_
