#include "tests/simulation/event_queue.h"

#include <algorithm>

namespace switchyard::simulation {

void EventQueue::At(absl::Time when, std::function<void()> what) {
  heap_.push_back({when, next_order_++, std::move(what)});
  std::push_heap(heap_.begin(), heap_.end(), Later);
}

bool EventQueue::Poll(absl::Time deadline) {
  ++num_polls_;
  const absl::Time until = std::max(deadline, now_);
  if (heap_.empty() || heap_.front().when > until) {
    if (deadline == absl::InfiniteFuture()) {
      stuck_ = true;
      now_ += absl::Hours(24);  // so that every deadline ends it
    } else {
      now_ = until;
    }
    return false;
  }
  std::pop_heap(heap_.begin(), heap_.end(), Later);
  Event event = std::move(heap_.back());
  heap_.pop_back();
  now_ = std::max(now_, event.when);
  event.what();
  return true;
}

void EventQueue::RunUntil(absl::Time when) {
  while (!heap_.empty() && heap_.front().when <= when) Poll(when);
  now_ = std::max(now_, when);
}

}  // namespace switchyard::simulation
