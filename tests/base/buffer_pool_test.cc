#include "base/buffer_pool.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/thread.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

TEST(BufferPoolTest, BuffersAreAlignedAndTheirOwn) {
  const auto pool = BufferPool::Create(1 << 20);
  std::vector<PooledBuffer> buffers;
  for (const size_t bytes : {0, 1, 63, 4096, 100'000, 3'000'000}) {
    buffers.push_back(pool->Take(bytes));
    EXPECT_EQ(buffers.back().size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffers.back().data()) % 64, 0);
    std::memset(buffers.back().data(), static_cast<int>(buffers.size()), bytes);
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    for (const char c : buffers[i].span<char>()) {
      ASSERT_EQ(c, static_cast<char>(i + 1));
    }
  }
}

TEST(BufferPoolTest, MemoryIsUsedAgain) {
  const auto pool = BufferPool::Create(1 << 20);
  const void* first = nullptr;
  {
    const PooledBuffer buffer = pool->Take(50'000);
    first = buffer.data();
    EXPECT_EQ(pool->idle_bytes(), 0);
  }
  EXPECT_GE(pool->idle_bytes(), 50'000);
  const PooledBuffer again = pool->Take(40'000);
  EXPECT_EQ(again.data(), first);
  EXPECT_EQ(again.size(), 40'000);
  EXPECT_EQ(pool->idle_bytes(), 0);
}

TEST(BufferPoolTest, SmallOnesDoNotTakeLargeOnes) {
  const auto pool = BufferPool::Create(16 << 20);
  const void* large = pool->Take(8 << 20).data();
  const PooledBuffer small = pool->Take(100);
  EXPECT_NE(small.data(), large);
  EXPECT_GE(pool->idle_bytes(), 8 << 20);
}

TEST(BufferPoolTest, WhatLiesIdleIsBounded) {
  const auto pool = BufferPool::Create(100'000);
  {
    std::vector<PooledBuffer> buffers;
    for (int i = 0; i < 100; ++i) buffers.push_back(pool->Take(5000));
    const PooledBuffer larger_than_all = pool->Take(1 << 20);
  }
  EXPECT_LE(pool->idle_bytes(), 100'000);
  EXPECT_GT(pool->idle_bytes(), 50'000);
}

TEST(BufferPoolTest, BuffersMayOutliveIt) {
  PooledBuffer buffer;
  buffer = BufferPool::Create(1 << 20)->Take(5000);
  PooledBuffer other = std::move(buffer);
  EXPECT_TRUE(buffer.empty());
  std::memset(other.data(), 1, other.size());
  EXPECT_EQ(other.span<int32_t>().size(), 1250);
}

TEST(BufferPoolTest, ThreadsNeverShareABuffer) {
  const auto pool = BufferPool::Create(1 << 20);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.push_back(StartThread("taker", [&pool, t] {
      for (int i = 0; i < 500; ++i) {
        PooledBuffer buffer = pool->Take(1000);
        for (int& x : buffer.span<int>()) x = t;
        for (const int x : buffer.span<int>()) ASSERT_EQ(x, t);
      }
    }));
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace switchyard
