// A world's time and everything that happens in it, on one thread.

#ifndef SWITCHYARD_TESTS_SIMULATION_EVENT_QUEUE_H_
#define SWITCHYARD_TESTS_SIMULATION_EVENT_QUEUE_H_

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "attention_worker/moe/reply_pump.h"
#include "base/clock.h"

namespace switchyard::simulation {

// Time stands still but for a wait, which goes to the next event and lets it
// happen, or to its deadline. So the dispatcher's thread is the only one, and a
// run depends on what was put in and nothing else. One thread.
class EventQueue final : public Clock, public attention_worker::ReplyPump {
 public:
  absl::Time Now() const override { return now_; }

  // Events of the same time happen in the order in which they were added.
  void At(absl::Time when, std::function<void()> what);
  void After(absl::Duration delay, std::function<void()> what) {
    At(now_ + delay, std::move(what));
  }

  // ReplyPump.
  bool Poll(absl::Time deadline) override;
  void Wake() override {}  // whoever could call it is the one who polls

  // Lets everything happen up to `when`.
  void RunUntil(absl::Time when);
  // Time passes, and nobody looks at what happens in it until later.
  void Work(absl::Duration time) { now_ += time; }

  // A wait that no event and no deadline would have ended.
  bool stuck() const { return stuck_; }
  int64_t num_polls() const { return num_polls_; }

 private:
  struct Event {
    absl::Time when;
    uint64_t order = 0;
    std::function<void()> what;
  };
  static bool Later(const Event& a, const Event& b) {
    return a.when != b.when ? a.when > b.when : a.order > b.order;
  }

  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  std::vector<Event> heap_;  // the earliest one first
  uint64_t next_order_ = 0;
  int64_t num_polls_ = 0;
  bool stuck_ = false;
};

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_EVENT_QUEUE_H_
