// The fuzzer's seeds, and each of them cut at every byte.

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/types/span.h"
#include "base/mapped_file.h"
#include "gtest/gtest.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/testing/matchers.h"

namespace switchyard::fuzz {

namespace {

TEST(FuzzRegressionTest, Snapshots) {
  int seeds = 0;
  for (const auto& seed : std::filesystem::directory_iterator(
           SWITCHYARD_SOURCE_DIR "/tests/fuzz/corpus/snapshot")) {
    const auto bytes = ReadFile(seed.path().string(), 1 << 20);
    ASSERT_THAT(bytes, switchyard::testing::IsOk());
    const absl::Span<const uint8_t> all(
        reinterpret_cast<const uint8_t*>(bytes->data()), bytes->size());
    for (size_t size = 0; size <= all.size(); ++size) {
      FuzzSnapshot(all.first(size));
    }
    ++seeds;
  }
  EXPECT_GE(seeds, 2);
}

}  // namespace
}  // namespace switchyard::fuzz
