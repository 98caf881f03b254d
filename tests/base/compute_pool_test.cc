#include "base/compute_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <string>
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

// Short loops one after the other: a lost wake-up would hang, a helper that
// joins too late would touch a loop that is gone (the sanitizers see that).
TEST(ComputePoolTest, ManyShortLoops) {
  const auto pool = NewThreadPool(4, "test");
  std::vector<int> counts(16, 0);  // unsynchronised, as kernels' outputs are
  constexpr int kLoops = 20'000;
  for (int loop = 0; loop < kLoops; ++loop) {
    const int64_t n = 1 + loop % 16;
    pool->ParallelFor(n, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++counts[i];
    });
  }
  EXPECT_EQ(counts[0], kLoops);
  EXPECT_EQ(counts[15], kLoops / 16);
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

TEST(ComputePoolTest, AvailableCpusIsAtLeastOne) {
  EXPECT_GE(AvailableCpus(), 1);
  EXPECT_LE(AvailableCpus(), 4096);
}

}  // namespace
}  // namespace switchyard
