#include "router/http/timer_queue.h"

#include <map>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/thread.h"

namespace switchyard::router {
namespace {

class ThreadTimerQueue final : public TimerQueue {
 public:
  ThreadTimerQueue() : thread_(StartThread("timers", [this] { Run(); })) {}

  ~ThreadTimerQueue() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }

  absl::Time Now() const override { return absl::Now(); }

  Id RunAt(absl::Time time, std::function<void()> function) override {
    MutexLock lock(&mutex_);
    const Id id = ++last_id_;
    due_.emplace(std::make_pair(time, id), std::move(function));
    times_.emplace(id, time);
    if (due_.begin()->first.second == id) changed_.SignalAll();
    return id;
  }

  void Cancel(Id id) override {
    std::function<void()> dropped;  // destroyed without the lock
    MutexLock lock(&mutex_);
    const auto time = times_.find(id);
    if (time == times_.end()) return;
    const auto entry = due_.find({time->second, id});
    dropped = std::move(entry->second);
    due_.erase(entry);
    times_.erase(time);
  }

 private:
  void Run() {
    mutex_.Lock();
    while (!stopping_) {
      if (due_.empty()) {
        changed_.WaitUntil(&mutex_, absl::InfiniteFuture());
        continue;
      }
      const auto next = due_.begin();
      if (next->first.first > absl::Now()) {
        changed_.WaitUntil(&mutex_, next->first.first);
        continue;
      }
      std::function<void()> function = std::move(next->second);
      times_.erase(next->first.second);
      due_.erase(next);
      mutex_.Unlock();
      function();
      function = nullptr;
      mutex_.Lock();
    }
    mutex_.Unlock();
  }

  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Id last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::pair<absl::Time, Id>, std::function<void()>> due_
      ABSL_GUARDED_BY(mutex_);
  std::map<Id, absl::Time> times_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace

std::unique_ptr<TimerQueue> TimerQueue::Create() {
  return std::make_unique<ThreadTimerQueue>();
}

}  // namespace switchyard::router
