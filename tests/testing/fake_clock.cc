#include "tests/testing/fake_clock.h"

#include "absl/time/civil_time.h"

namespace switchyard::testing {

FakeClock::FakeClock()
    : now_(absl::FromCivil(absl::CivilDay(2025, 1, 1), absl::UTCTimeZone())) {}

absl::Time FakeClock::Now() const {
  MutexLock lock(&mutex_);
  return now_;
}

void FakeClock::Set(absl::Time now) {
  MutexLock lock(&mutex_);
  now_ = now;
}

void FakeClock::Advance(absl::Duration by) {
  MutexLock lock(&mutex_);
  now_ += by;
}

}  // namespace switchyard::testing
