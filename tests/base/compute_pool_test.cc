#include "base/compute_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

struct Range {
  int64_t begin;
  int64_t end;
};

std::vector<Range> RunAndSort(ComputePool* pool, int64_t n, int64_t grain) {
  Mutex mutex;
  std::vector<Range> ranges;
  pool->ParallelFor(n, grain, [&](int64_t begin, int64_t end) {
    MutexLock lock(&mutex);
    ranges.push_back({begin, end});
  });
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  return ranges;
}

TEST(ComputePoolTest, RangesCoverEachItemOnceAndKeepTheGrain) {
  for (const int threads : {1, 2, 3, 8}) {
    const auto pool = NewThreadPool(threads, "test");
    EXPECT_EQ(pool->num_threads(), threads);
    for (const int64_t n : {1, 2, 7, 64, 1000, 1001}) {
      for (const int64_t grain : {1, 3, 64, 5000}) {
        const std::vector<Range> ranges = RunAndSort(pool.get(), n, grain);
        ASSERT_FALSE(ranges.empty());
        int64_t covered = 0;
        for (size_t i = 0; i < ranges.size(); ++i) {
          ASSERT_EQ(ranges[i].begin, covered);
          ASSERT_LT(ranges[i].begin, ranges[i].end);
          if (i + 1 < ranges.size()) {
            ASSERT_GE(ranges[i].end - ranges[i].begin, grain);
          }
          covered = ranges[i].end;
        }
        ASSERT_EQ(covered, n);
      }
    }
  }
}

TEST(ComputePoolTest, NothingToDoCallsNothing) {
  InlinePool inline_pool;
  const auto pool = NewThreadPool(2, "test");
  const auto fail = [](int64_t, int64_t) { FAIL(); };
  pool->ParallelFor(0, 1, fail);
  pool->ParallelFor(-1, 1, fail);
  inline_pool.ParallelFor(0, 1, fail);
}

TEST(ComputePoolTest, InlinePoolMakesOneRange) {
  InlinePool pool;
  EXPECT_EQ(pool.num_threads(), 1);
  const std::vector<Range> ranges = RunAndSort(&pool, 100, 1);
  ASSERT_EQ(ranges.size(), 1);
  EXPECT_EQ(ranges[0].end, 100);
}

// Each range waits until all threads are in one: so all take part, by name.
TEST(ComputePoolTest, AllThreadsTakePart) {
  constexpr int kThreads = 4;
  const auto pool = NewThreadPool(kThreads, "experts");
  Mutex mutex;
  CondVar all_here;
  std::set<std::string> names;
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  pool->ParallelFor(kThreads, 1, [&](int64_t, int64_t) {
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    MutexLock lock(&mutex);
    names.insert(name);
    all_here.SignalAll();
    while (names.size() < kThreads && all_here.WaitUntil(&mutex, deadline)) {
    }
  });
  EXPECT_EQ(names.size(), kThreads);
  for (const char* name : {"experts-1", "experts-2", "experts-3"}) {
    EXPECT_EQ(names.count(name), 1) << name;
  }
}

// Later ranges are not longer, so that unequal threads are evened out.
TEST(ComputePoolTest, LongRangesFirst) {
  const auto pool = NewThreadPool(3, "test");
  const std::vector<Range> ranges = RunAndSort(pool.get(), 1000, 1);
  EXPECT_GT(ranges.front().end - ranges.front().begin, 100);
  for (size_t i = 1; i < ranges.size(); ++i) {
    EXPECT_LE(ranges[i].end - ranges[i].begin,
              ranges[i - 1].end - ranges[i - 1].begin);
  }
  EXPECT_EQ(ranges.back().end - ranges.back().begin, 1);
}

std::unique_ptr<ComputePool> PoolThatSpins(int threads, absl::Duration spin) {
  ThreadPoolOptions options;
  options.num_threads = threads;
  options.name = "test";
  options.spin = spin;
  return NewThreadPool(std::move(options));
}

// Adds 1 to the first n of `counts`, which are unsynchronised, as kernels'
// outputs are.
void CountUp(ComputePool* pool, int64_t n, std::vector<int>* counts) {
  pool->ParallelFor(n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++(*counts)[i];
  });
}

// Short loops one after the other: a lost wake-up would hang, a helper that
// joins too late would touch a loop that is gone (the sanitizers see that).
TEST(ComputePoolTest, ManyShortLoops) {
  const auto pool = NewThreadPool(4, "test");
  std::vector<int> counts(16, 0);
  constexpr int kLoops = 20'000;
  for (int loop = 0; loop < kLoops; ++loop) {
    CountUp(pool.get(), 1 + loop % 16, &counts);
  }
  EXPECT_EQ(counts[0], kLoops);
  EXPECT_EQ(counts[15], kLoops / 16);
}

// The same in steps, whose helpers stay awake, fall asleep in between, or are
// sent to sleep while the caller waits for something else.
TEST(ComputePoolTest, ManyShortLoopsInSteps) {
  for (const absl::Duration spin :
       {absl::ZeroDuration(), absl::Nanoseconds(1), absl::Microseconds(50),
        absl::Milliseconds(2)}) {
    const auto pool = PoolThatSpins(3, spin);
    std::vector<int> counts(16, 0);
    constexpr int kSteps = 300;
    constexpr int kLoops = 10;
    for (int step = 0; step < kSteps; ++step) {
      const ComputePool::Active active(pool.get());
      for (int loop = 0; loop < kLoops; ++loop) {
        CountUp(pool.get(), 16, &counts);
        if (loop == step % 20) {
          const ComputePool::Paused paused(pool.get());
          CountUp(pool.get(), 16, &counts);
        }
      }
    }
    EXPECT_THAT(counts, ::testing::Each(kSteps * kLoops + kSteps / 2)) << spin;
  }
}

// A helper that is awake takes part without being woken: a loop of as many
// items as threads, each of which waits for all others.
TEST(ComputePoolTest, AllThreadsTakePartInAStep) {
  constexpr int kThreads = 3;
  const auto pool = PoolThatSpins(kThreads, absl::Seconds(10));
  const ComputePool::Active active(pool.get());
  for (int loop = 0; loop < 50; ++loop) {
    std::atomic<int> here{0};
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    pool->ParallelFor(kThreads, 1, [&](int64_t begin, int64_t end) {
      here += static_cast<int>(end - begin);
      while (here < kThreads && absl::Now() < deadline) {
      }
    });
    ASSERT_EQ(here.load(), kThreads);
    ASSERT_LT(absl::Now(), deadline);
  }
}

TEST(ComputePoolTest, DestructionEndsSpinning) {
  for (int i = 0; i < 20; ++i) {
    const auto pool = PoolThatSpins(4, absl::Hours(1));
    std::vector<int> counts(4, 0);
    const ComputePool::Active active(pool.get());
    CountUp(pool.get(), 4, &counts);
    EXPECT_THAT(counts, ::testing::Each(1));
  }
}

TEST(ComputePoolTest, StartsAndStopsAtOnce) {
  for (int i = 0; i < 200; ++i) {
    const auto pool = NewThreadPool(3, "test");
    std::atomic<int> items{0};
    if (i % 2 == 0) {
      pool->ParallelFor(5, 1, [&](int64_t begin, int64_t end) {
        items += static_cast<int>(end - begin);
      });
      EXPECT_EQ(items.load(), 5);
    }
  }
}

TEST(ComputePoolDeathTest, RefusesToBeCalledFromItsOwnLoop) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        const auto pool = NewThreadPool(2, "test");
        pool->ParallelFor(2, 1, [&](int64_t, int64_t) {
          pool->ParallelFor(2, 1, [](int64_t, int64_t) {});
        });
      },
      "broken: loop_ == nullptr");
}

// Thread i of the pool on CPU i of the list, the caller included.
TEST(ComputePoolTest, ThreadsRunOnTheirCpus) {
  const std::vector<int> allowed = AffinityCpus();
  ASSERT_FALSE(allowed.empty());
  ThreadPoolOptions options;
  options.num_threads = static_cast<int>(std::min<size_t>(2, allowed.size()));
  options.name = "test";
  options.cpus = {allowed.rbegin(), allowed.rbegin() + options.num_threads};
  std::thread caller([&] {
    const auto pool = NewThreadPool(options);
    const ComputePool::Active active(pool.get());
    Mutex mutex;
    CondVar all_here;
    std::vector<std::vector<int>> masks;
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    pool->ParallelFor(options.num_threads, 1, [&](int64_t, int64_t) {
      MutexLock lock(&mutex);
      masks.push_back(AffinityCpus());
      all_here.SignalAll();
      while (masks.size() < options.cpus.size() &&
             all_here.WaitUntil(&mutex, deadline)) {
      }
    });
    std::vector<std::vector<int>> expected;
    for (const int cpu : options.cpus) expected.push_back({cpu});
    EXPECT_THAT(masks, ::testing::UnorderedElementsAreArray(expected));
  });
  caller.join();
  EXPECT_EQ(AffinityCpus(), allowed);
}

}  // namespace
}  // namespace switchyard
