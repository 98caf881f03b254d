// Lets the thread that waits for replies fetch them itself.
//
// A reply that another thread takes from the network costs a second wake-up,
// 50 us or more, in every layer.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_PUMP_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_PUMP_H_

#include "absl/time/time.h"

namespace switchyard::attention_worker {

class ReplyPump {
 public:
  virtual ~ReplyPump() = default;

  // Waits for one event of the clients behind this and handles it on this
  // thread, which calls back `done`s and listeners. Returns after it (true),
  // after Wake, or at `deadline`; sometimes without reason. One caller at a
  // time.
  virtual bool Poll(absl::Time deadline) = 0;

  // Ends the Poll that waits, or the next one that would. Thread-safe.
  virtual void Wake() = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_PUMP_H_
