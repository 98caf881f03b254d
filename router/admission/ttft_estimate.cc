#include "router/admission/ttft_estimate.h"

#include <cmath>

namespace switchyard::router {
namespace {

// Of waiting, after which what was seen counts half.
constexpr double kHalfLifeSeconds = 30;
// Less than this says nothing.
constexpr double kMinBusySeconds = 0.05;

}  // namespace

void TtftEstimate::Advance(absl::Time now) {
  if (waiting_ > 0 && now > last_) {
    const double seconds = absl::ToDoubleSeconds(now - last_);
    const double fade = std::exp2(-seconds / kHalfLifeSeconds);
    done_tokens_ *= fade;
    busy_seconds_ = busy_seconds_ * fade + seconds;
  }
  last_ = now;
}

void TtftEstimate::Began(int64_t prompt_tokens, absl::Time now) {
  Advance(now);
  ++waiting_;
  waiting_tokens_ += prompt_tokens;
}

void TtftEstimate::Ended(int64_t prompt_tokens, bool has_token,
                         absl::Time now) {
  Advance(now);
  --waiting_;
  waiting_tokens_ -= prompt_tokens;
  if (has_token) done_tokens_ += static_cast<double>(prompt_tokens);
}

absl::optional<absl::Duration> TtftEstimate::For(int64_t prompt_tokens) const {
  if (busy_seconds_ < kMinBusySeconds || done_tokens_ <= 0) {
    return absl::nullopt;
  }
  return absl::Seconds(static_cast<double>(waiting_tokens_ + prompt_tokens) *
                       busy_seconds_ / done_tokens_);
}

}  // namespace switchyard::router
