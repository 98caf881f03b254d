#include "attention_worker/client/clock_offset.h"

#include <algorithm>

namespace switchyard::attention_worker {
namespace {

// Quartz drifts by some 10 us a second; at 1,000 exchanges a second an exchange
// of 100 us is as good as this after a second.
constexpr double kAging = 1.0001;

}  // namespace

ClockOffset::Wire ClockOffset::Observe(absl::Time sent, absl::Time received,
                                       absl::Duration busy,
                                       absl::Time returned) {
  const absl::Duration wire =
      std::max(returned - sent - busy, absl::ZeroDuration());
  if (wire <= trusted_wire_) {
    trusted_wire_ = wire;
    offset_ = received - sent - wire / 2;
  } else {
    trusted_wire_ *= kAging;
  }
  const absl::Duration out =
      std::clamp(received - offset_ - sent, absl::ZeroDuration(), wire);
  return {.out = out, .back = wire - out};
}

}  // namespace switchyard::attention_worker
