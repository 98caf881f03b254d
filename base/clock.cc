#include "base/clock.h"

#include "absl/time/clock.h"

namespace switchyard {
namespace {

class RealClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

}  // namespace

const Clock* Clock::Real() {
  static const RealClock* const kClock = new RealClock();  // never destroyed
  return kClock;
}

}  // namespace switchyard
