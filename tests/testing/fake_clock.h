// Time that stands still until a test moves it.

#ifndef SWITCHYARD_TESTS_TESTING_FAKE_CLOCK_H_
#define SWITCHYARD_TESTS_TESTING_FAKE_CLOCK_H_

#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace switchyard::testing {

// Thread-safe. Starts at 2025-01-01 00:00 UTC.
class FakeClock final : public Clock {
 public:
  FakeClock();
  explicit FakeClock(absl::Time now) : now_(now) {}

  absl::Time Now() const override;
  void Set(absl::Time now);
  void Advance(absl::Duration by);

 private:
  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_FAKE_CLOCK_H_
