// When a lost stream is tried again.

#ifndef SWITCHYARD_ATTENTION_WORKER_CLIENT_RECONNECT_BACKOFF_H_
#define SWITCHYARD_ATTENTION_WORKER_CLIENT_RECONNECT_BACKOFF_H_

#include "absl/time/time.h"

namespace switchyard::attention_worker {

// What became of an attempt.
enum class AttemptEnd {
  kRefused,  // the worker is another one than wanted, or breaks the protocol
  kUnreachable,  // nobody answered
  kLost,         // answered, and then ended
};

// The first attempt fails at once while nobody listens, and so brings the
// reason for health(); the one after it waits in the channel, which connects by
// itself as soon as somebody does. Unsynchronised.
class ReconnectBackoff {
 public:
  struct Options {
    // Doubles from min to max with every attempt that fails.
    absl::Duration min;
    absl::Duration max;
    absl::Duration refused;
  };

  explicit ReconnectBackoff(const Options& options)
      : options_(options), delay_(options.min) {}

  // The attempt to be made next: not before, and whether it waits in the
  // channel until somebody listens.
  absl::Time next_attempt() const { return next_attempt_; }
  bool waits_for_ready() const { return waits_for_ready_; }

  // That attempt has ended at `now`; `ready_since`: when its stream was usable,
  // or InfiniteFuture.
  void AttemptEnded(AttemptEnd end, absl::Time ready_since, absl::Time now);

 private:
  const Options options_;
  absl::Duration delay_;
  absl::Time next_attempt_ = absl::InfinitePast();
  bool waits_for_ready_ = false;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CLIENT_RECONNECT_BACKOFF_H_
