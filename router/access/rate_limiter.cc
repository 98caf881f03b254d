#include "router/access/rate_limiter.h"

#include <algorithm>

namespace switchyard::router {
namespace {

// `level` after `minutes` more of `per_minute`, which is also the most.
double Fill(double level, double minutes, int64_t per_minute) {
  const double most = static_cast<double>(per_minute);
  return std::min(most, level + minutes * most);
}

// Until `level` is `wanted`.
absl::Duration TimeTo(double wanted, double level, int64_t per_minute) {
  if (per_minute <= 0 || level >= wanted) return absl::ZeroDuration();
  return absl::Minutes((wanted - level) / static_cast<double>(per_minute));
}

}  // namespace

RateLimiter::Buckets* RateLimiter::BucketsOf(const std::string& client,
                                             const ClientLimits& limits) {
  const absl::Time now = clock_->Now();
  Buckets& buckets = buckets_[client];
  // A clock that was set back fills nothing. The first time fills all.
  const double minutes =
      buckets.filled == absl::InfinitePast()
          ? 1
          : std::max(0.0, absl::ToDoubleMinutes(now - buckets.filled));
  buckets.requests =
      Fill(buckets.requests, minutes, limits.requests_per_minute);
  buckets.tokens = Fill(buckets.tokens, minutes, limits.tokens_per_minute);
  buckets.filled = now;
  return &buckets;
}

absl::Duration RateLimiter::TakeRequest(const std::string& client,
                                        const ClientLimits& limits) {
  MutexLock lock(&mutex_);
  Buckets* const buckets = BucketsOf(client, limits);
  // A whole request, or nearly: sums of fractions are never exact.
  constexpr double kOne = 1 - 1e-9;
  const absl::Duration wait =
      std::max(TimeTo(kOne, buckets->requests, limits.requests_per_minute),
               TimeTo(0, buckets->tokens, limits.tokens_per_minute));
  if (wait > absl::ZeroDuration()) return wait;
  if (limits.requests_per_minute > 0) buckets->requests -= 1;
  return absl::ZeroDuration();
}

void RateLimiter::ChargeTokens(const std::string& client,
                               const ClientLimits& limits, int64_t tokens) {
  if (limits.tokens_per_minute <= 0) return;
  MutexLock lock(&mutex_);
  BucketsOf(client, limits)->tokens -= static_cast<double>(tokens);
}

}  // namespace switchyard::router
