#include "switchyard/bench/limits/limits.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <iterator>
#include <set>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "switchyard/bench/limits/instructions.h"
#include "switchyard/bench/limits/throughput.h"

namespace switchyard::bench {
namespace {

constexpr Operation kOperations[] = {Operation::kFmaAvx2, Operation::kFmaAvx512,
                                     Operation::kBf16Dot, Operation::kInt8Avx2,
                                     Operation::kInt8Vnni};

TEST(ThroughputTest, EveryThreadWorksAndAllCount) {
  constexpr int kThreads = 3;
  std::atomic<int64_t> calls[kThreads] = {};
  const Rate rate = MeasureThroughput(kThreads, 0, 1e6, [&](int thread) {
    calls[thread].fetch_add(1);
    std::this_thread::yield();
  });
  for (const std::atomic<int64_t>& count : calls) EXPECT_GT(count.load(), 0);
  EXPECT_GT(rate.median, 0);
  // One window counts; its size is the same.
  EXPECT_EQ(rate.best, rate.median);
}

TEST(ThroughputTest, RateIsSizeTimesCallsASecond) {
  // No more calls can be counted than were made in the whole time.
  std::atomic<int64_t> calls{0};
  const double start = Now();
  const Rate rate =
      MeasureThroughput(1, 0.2, 7.0, [&](int) { calls.fetch_add(1); });
  const double average =
      7.0 * static_cast<double>(calls.load()) / (Now() - start);
  EXPECT_GE(rate.best, rate.median);
  EXPECT_GT(rate.best, 0.5 * average);
}

TEST(LimitsTest, OperationsOfThisCpu) {
  for (const Operation operation : kOperations) {
    const Rate rate = MeasureOperations(operation, 1, 0);
    if (CpuHas(operation)) {
      // Between a thousandth of today's cores and a thousand times as much: a
      // loop that the compiler dropped is further off.
      EXPECT_GT(rate.median, 1e8) << OperationName(operation);
      EXPECT_LT(rate.best, 1e14) << OperationName(operation);
    } else {
      EXPECT_EQ(rate.best, 0) << OperationName(operation);
    }
  }
}

TEST(LimitsTest, BestIsOneThatTheCpuHas) {
  if (CpuHas(Operation::kFmaAvx2)) {
    EXPECT_TRUE(CpuHas(BestFma()));
  }
  if (CpuHas(Operation::kInt8Avx2)) {
    EXPECT_TRUE(CpuHas(BestInt8()));
  }
}

TEST(LimitsTest, OperationsHaveNamesOfTheirOwn) {
  std::set<std::string> names;
  for (const Operation operation : kOperations) {
    names.insert(OperationName(operation));
  }
  EXPECT_EQ(names.size(), std::size(kOperations));
}

TEST(LimitsTest, ReadsFromMemory) {
  for (const PageSize pages : {PageSize::kHuge, PageSize::kSmall}) {
    const Rate rate = MeasureRead(2, pages, 0);
    EXPECT_GT(rate.median, 1e7);
    EXPECT_LT(rate.best, 1e13);
  }
}

TEST(LimitsTest, ReadMemoryStaysInside) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  char* const memory =
      static_cast<char*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(memory, MAP_FAILED);
  ASSERT_EQ(mprotect(memory + page, page, PROT_NONE), 0);
  ReadMemory(memory, page);  // would fault one byte further
  ReadMemory(memory + page - 1024, 1024);
  munmap(memory, 2 * page);
}

}  // namespace
}  // namespace switchyard::bench
