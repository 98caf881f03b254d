// How much each client takes in a minute.

#ifndef SWITCHYARD_ROUTER_ACCESS_RATE_LIMITER_H_
#define SWITCHYARD_ROUTER_ACCESS_RATE_LIMITER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "router/access/client_key.h"

namespace switchyard::router {

// One bucket of requests and one of tokens for each client. A bucket holds a
// minute's worth, and is filled evenly. Tokens are known only afterwards: they
// are charged then, and who took more than was there waits until it is paid.
// Thread-safe; keeps a few numbers for each client name it was asked about.
class RateLimiter {
 public:
  // `clock` is not owned and outlives this.
  explicit RateLimiter(const Clock* clock) : clock_(clock) {}

  // ZeroDuration: one request was taken. Else nothing was: how long until one
  // can be.
  absl::Duration TakeRequest(const std::string& client,
                             const ClientLimits& limits)
      ABSL_LOCKS_EXCLUDED(mutex_);

  void ChargeTokens(const std::string& client, const ClientLimits& limits,
                    int64_t tokens) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Buckets {
    double requests = 0;
    double tokens = 0;  // below 0: owed
    absl::Time filled = absl::InfinitePast();
  };

  // Brought up to now.
  Buckets* BucketsOf(const std::string& client, const ClientLimits& limits)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock* const clock_;
  Mutex mutex_;
  std::map<std::string, Buckets> buckets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ACCESS_RATE_LIMITER_H_
