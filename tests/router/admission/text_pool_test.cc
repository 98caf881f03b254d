#include "router/admission/text_pool.h"

#include <atomic>
#include <memory>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::router {
namespace {

using switchyard::testing::IsOk;
using switchyard::testing::StatusIs;
using ::testing::HasSubstr;

// Work that says when it has begun, and ends when it is let go.
class Gate {
 public:
  std::function<void()> Work() {
    return [this] {
      MutexLock lock(&mutex_);
      begun_ = true;
      changed_.SignalAll();
      const absl::Time deadline = absl::Now() + absl::Seconds(60);
      while (!open_ && changed_.WaitUntil(&mutex_, deadline)) {
      }
    };
  }
  bool WaitUntilBegun() {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    MutexLock lock(&mutex_);
    while (!begun_ && changed_.WaitUntil(&mutex_, deadline)) {
    }
    return begun_;
  }
  void Open() {
    MutexLock lock(&mutex_);
    open_ = true;
    changed_.SignalAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(TextPoolTest, RefusesWhatTheQueueCannotHold) {
  Gate gate;
  std::atomic<int> ran{0};
  TextPool pool({.num_threads = 1, .max_queued = 2, .max_queued_bytes = 100});
  ASSERT_THAT(pool.Submit(1, gate.Work()), IsOk());
  ASSERT_TRUE(gate.WaitUntilBegun());  // the queue is empty again
  // One text may be larger than the queue, or it could never be served.
  EXPECT_THAT(pool.Submit(1000, [&] { ++ran; }), IsOk());
  EXPECT_THAT(
      pool.Submit(1, [&] { ++ran; }),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("1000")));
  gate.Open();
  Gate end;
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (!pool.Submit(0, end.Work()).ok() && absl::Now() < deadline) {
    std::this_thread::yield();
  }
  ASSERT_TRUE(end.WaitUntilBegun());
  EXPECT_EQ(ran, 1);
  EXPECT_THAT(pool.Submit(1, [&] { ++ran; }), IsOk());
  EXPECT_THAT(pool.Submit(1, [&] { ++ran; }), IsOk());
  EXPECT_THAT(pool.Submit(1, [&] { ++ran; }),
              StatusIs(absl::StatusCode::kResourceExhausted));
  end.Open();
}

TEST(TextPoolTest, StopDropsWhatHasNotBegunAndWaitsForTheRest) {
  Gate gate;
  auto held = std::make_shared<int>();
  TextPool pool({.num_threads = 1});
  ASSERT_THAT(pool.Submit(1, gate.Work()), IsOk());
  ASSERT_TRUE(gate.WaitUntilBegun());
  bool ran = false;
  ASSERT_THAT(pool.Submit(1, [&ran, held] { ran = true; }), IsOk());
  std::thread stop([&] { pool.Stop(); });
  // What is dropped is destroyed, too.
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (held.use_count() > 1 && absl::Now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_THAT(pool.Submit(1, [] {}), StatusIs(absl::StatusCode::kUnavailable));
  gate.Open();
  stop.join();
  EXPECT_FALSE(ran);
  EXPECT_EQ(held.use_count(), 1);
  pool.Stop();
}

}  // namespace
}  // namespace switchyard::router
