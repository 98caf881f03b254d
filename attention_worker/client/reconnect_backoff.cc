#include "attention_worker/client/reconnect_backoff.h"

#include <algorithm>
#include <utility>

namespace switchyard::attention_worker {
namespace {

// A stream that lived this long was a good one: the next attempt is made at
// once, and the back-off starts anew.
constexpr absl::Duration kStableAfter = absl::Seconds(1);

}  // namespace

void ReconnectBackoff::AttemptEnded(AttemptEnd end, absl::Time ready_since,
                                    absl::Time now) {
  const bool waited = std::exchange(waits_for_ready_, false);
  if (end == AttemptEnd::kRefused) {
    next_attempt_ = now + options_.refused;
    return;
  }
  if (now - kStableAfter >= ready_since) {
    delay_ = options_.min;
    next_attempt_ = now;
    return;
  }
  if (end == AttemptEnd::kUnreachable && !waited) {
    waits_for_ready_ = true;
    next_attempt_ = now;
    return;
  }
  next_attempt_ = now + delay_;
  delay_ = std::min(delay_ * 2, options_.max);
}

}  // namespace switchyard::attention_worker
