#include "router/http/timer_queue.h"

#include <vector>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "gtest/gtest.h"

namespace switchyard::router {
namespace {

TEST(TimerQueueTest, RunsInTheOrderOfTimesAndNotWhatIsCancelled) {
  Mutex mutex;
  CondVar changed;
  std::vector<int> ran;
  const auto record = [&](int value) {
    return [&, value] {
      MutexLock lock(&mutex);
      ran.push_back(value);
      changed.SignalAll();
    };
  };
  auto timers = TimerQueue::Create();
  const absl::Time now = timers->Now();
  timers->RunAt(now + absl::Milliseconds(40), record(3));
  timers->RunAt(now + absl::Milliseconds(20), record(2));
  const auto cancelled = timers->RunAt(now + absl::Milliseconds(10), record(9));
  timers->Cancel(cancelled);
  timers->RunAt(now - absl::Seconds(1), record(1));
  timers->RunAt(now + absl::Hours(1), record(8));  // dropped at the end
  {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    MutexLock lock(&mutex);
    while (ran.size() < 3 && changed.WaitUntil(&mutex, deadline)) {
    }
    EXPECT_EQ(ran, (std::vector<int>{1, 2, 3}));
  }
  EXPECT_GE(timers->Now(), now + absl::Milliseconds(40));
  timers->Cancel(12345);  // unknown
}

}  // namespace
}  // namespace switchyard::router
