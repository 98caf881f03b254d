// Calls at a later time, injected so that tests move the time by hand.

#ifndef SWITCHYARD_ROUTER_HTTP_TIMER_QUEUE_H_
#define SWITCHYARD_ROUTER_HTTP_TIMER_QUEUE_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/time/time.h"

namespace switchyard::router {

// Thread-safe. Functions run on one thread, one after the other: they must not
// block, and normally post to where the work belongs.
class TimerQueue {
 public:
  using Id = uint64_t;

  // With a thread of its own, called `timers`. Functions that are not due when
  // it is destroyed never run.
  static std::unique_ptr<TimerQueue> Create();
  virtual ~TimerQueue() = default;

  virtual absl::Time Now() const = 0;
  // Runs `function` once, at `time` or a little later.
  virtual Id RunAt(absl::Time time, std::function<void()> function) = 0;
  // `function` will not start any more, but may be running just now. Unknown
  // ids are ignored: it may just have run.
  virtual void Cancel(Id id) = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_HTTP_TIMER_QUEUE_H_
