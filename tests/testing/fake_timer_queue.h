// Timers that fire when a test moves the time.

#ifndef SWITCHYARD_TESTS_TESTING_FAKE_TIMER_QUEUE_H_
#define SWITCHYARD_TESTS_TESTING_FAKE_TIMER_QUEUE_H_

#include <functional>
#include <map>
#include <utility>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "router/http/timer_queue.h"

namespace switchyard::testing {

// Thread-safe. Starts at 2025-01-01 00:00 UTC, which is 1735689600.
class FakeTimerQueue final : public router::TimerQueue {
 public:
  absl::Time Now() const override;
  Id RunAt(absl::Time time, std::function<void()> function) override;
  void Cancel(Id id) override;

  // Moves the time on and runs what is due on the way, in the caller.
  void Advance(absl::Duration by);
  // Waits until at least `count` timers are set; false if `deadline` came
  // first.
  bool WaitForTimers(size_t count, absl::Time deadline);
  size_t num_timers() const;

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::FromUnixSeconds(1735689600);
  Id last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::pair<absl::Time, Id>, std::function<void()>> due_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_FAKE_TIMER_QUEUE_H_
