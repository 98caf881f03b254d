// How far a peer's clock is ahead of ours, so that a round trip's time on the
// wire can be told apart by direction.

#ifndef SWITCHYARD_ATTENTION_WORKER_CLIENT_CLOCK_OFFSET_H_
#define SWITCHYARD_ATTENTION_WORKER_CLIENT_CLOCK_OFFSET_H_

#include "absl/time/time.h"

namespace switchyard::attention_worker {

// An exchange whose two ways together took t tells the offset to within t / 2,
// so the fastest one is believed; less and less with every later one, since
// clocks drift. Unsynchronised.
class ClockOffset {
 public:
  struct Wire {
    absl::Duration out;
    absl::Duration back;
  };

  // A request left at `sent` by our clock; it came to the peer at `received` by
  // the peer's; the answer left the peer `busy` later, and was here at
  // `returned`. What both ways took, by the offset as known with this exchange;
  // neither is below 0.
  Wire Observe(absl::Time sent, absl::Time received, absl::Duration busy,
               absl::Time returned);

  absl::Duration offset() const { return offset_; }

 private:
  absl::Duration offset_;
  // What the believed exchange took, and a little more for each one since.
  absl::Duration trusted_wire_ = absl::InfiniteDuration();
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CLIENT_CLOCK_OFFSET_H_
