// Injected time, so that tests move it by hand.

#ifndef SWITCHYARD_BASE_CLOCK_H_
#define SWITCHYARD_BASE_CLOCK_H_

#include "absl/time/time.h"

namespace switchyard {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;

  // The machine's clock. Never null, lives for ever.
  static const Clock* Real();
};

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_CLOCK_H_
