#include "base/huge_page_memory.h"

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;

constexpr int64_t kPage = HugePageMemory::kPageBytes;

std::unique_ptr<HugePageMemory> Reserve(int64_t bytes) {
  auto memory = HugePageMemory::Reserve(bytes);
  EXPECT_THAT(memory, IsOk());
  return *std::move(memory);
}

TEST(HugePageMemoryTest, IsAlignedZeroAndWritableToItsEnd) {
  for (const int64_t bytes : {int64_t{1}, kPage - 1, kPage, 3 * kPage + 5}) {
    const auto memory = Reserve(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % kPage, 0u);
    EXPECT_GE(memory->size(), bytes);
    EXPECT_EQ(memory->size() % kPage, 0);
    EXPECT_THAT(memory->Populate(0, bytes), IsOk());
    EXPECT_EQ(memory->data()[0], 0);
    EXPECT_EQ(memory->data()[bytes - 1], 0);
    memory->data()[0] = 1;
    memory->data()[memory->size() - 1] = 2;
    EXPECT_EQ(memory->data()[0], 1);
  }
}

TEST(HugePageMemoryTest, PartsFromSeveralThreads) {
  const auto memory = Reserve(8 * kPage);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      EXPECT_THAT(memory->Populate(2 * i * kPage + 1, 2 * (i + 1) * kPage),
                  IsOk());
      memory->data()[2 * i * kPage] = static_cast<uint8_t>(i + 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(memory->data()[2 * i * kPage], i + 1);
  EXPECT_THAT(memory->Populate(5, 5), IsOk());
}

// Where the kernel gives large pages to who asks, all of it lies in them.
TEST(HugePageMemoryTest, LiesInLargePages) {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string mode;
  std::getline(file, mode);
  if (mode.find("[never]") != std::string::npos || mode.empty()) {
    GTEST_SKIP() << "no transparent huge pages here: '" << mode << "'";
  }
  const auto memory = Reserve(16 * kPage);
  EXPECT_THAT(memory->Populate(0, 16 * kPage), IsOk());
  // Fragmented memory may deny some.
  EXPECT_GE(memory->huge_bytes(), 8 * kPage);
  EXPECT_LE(memory->huge_bytes(), memory->size());
}

TEST(HugePageMemoryTest, MoreThanThereIs) {
  EXPECT_THAT(HugePageMemory::Reserve(int64_t{1} << 60),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       ::testing::HasSubstr("MiB of addresses")));
}

}  // namespace
}  // namespace switchyard
