// What it costs to go on elsewhere: to move a session's state, or to read its
// tokens again there.

#ifndef SWITCHYARD_ROUTER_ROUTING_MOVE_COSTS_H_
#define SWITCHYARD_ROUTER_ROUTING_MOVE_COSTS_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace switchyard::router {

// Both speeds as this router has measured them, later measurements counting
// more; before the first one, guesses of a slow network and a slow CPU.
// Thread-safe.
class MoveCosts {
 public:
  // A worker read `tokens` tokens of a prompt in `took`. Too few say nothing.
  void ObserveReading(int64_t tokens, absl::Duration took)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // A state of `bytes` bytes got from one worker to another in `took`.
  void ObserveMove(int64_t bytes, absl::Duration took)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether the state of `tokens` tokens, `bytes` long, is elsewhere sooner
  // than the tokens are read there. False if `bytes` is 0: nobody knows.
  bool MovingIsCheaper(int64_t tokens, int64_t bytes) const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable Mutex mutex_;
  double tokens_per_second_ ABSL_GUARDED_BY(mutex_) = 100;
  double bytes_per_second_ ABSL_GUARDED_BY(mutex_) = 100e6;
  bool read_before_ ABSL_GUARDED_BY(mutex_) = false;
  bool moved_before_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ROUTING_MOVE_COSTS_H_
