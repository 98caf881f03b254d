#include "tests/testing/fake_timer_queue.h"

#include <algorithm>

namespace switchyard::testing {

absl::Time FakeTimerQueue::Now() const {
  MutexLock lock(&mutex_);
  return now_;
}

router::TimerQueue::Id FakeTimerQueue::RunAt(absl::Time time,
                                             std::function<void()> function) {
  MutexLock lock(&mutex_);
  due_.emplace(std::make_pair(time, ++last_id_), std::move(function));
  changed_.SignalAll();
  return last_id_;
}

void FakeTimerQueue::Cancel(Id id) {
  std::function<void()> dropped;
  MutexLock lock(&mutex_);
  const auto it =
      std::find_if(due_.begin(), due_.end(),
                   [&](const auto& entry) { return entry.first.second == id; });
  if (it == due_.end()) return;
  dropped = std::move(it->second);
  due_.erase(it);
}

void FakeTimerQueue::Advance(absl::Duration by) {
  const absl::Time end = Now() + by;
  while (true) {
    std::function<void()> function;
    {
      MutexLock lock(&mutex_);
      if (due_.empty() || due_.begin()->first.first > end) {
        now_ = end;
        return;
      }
      now_ = std::max(now_, due_.begin()->first.first);
      function = std::move(due_.begin()->second);
      due_.erase(due_.begin());
    }
    function();
  }
}

bool FakeTimerQueue::WaitForTimers(size_t count, absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (due_.size() < count) {
    if (!changed_.WaitUntil(&mutex_, deadline)) return due_.size() >= count;
  }
  return true;
}

size_t FakeTimerQueue::num_timers() const {
  MutexLock lock(&mutex_);
  return due_.size();
}

}  // namespace switchyard::testing
