// The fuzz target of the expert messages on its corpus, on every prefix and on
// every flipped bit of it, in every build.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "gtest/gtest.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/testing/matchers.h"

namespace switchyard::fuzz {
namespace {

void RunTarget(const std::string& bytes) {
  FuzzExpertCodec(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
}

TEST(FuzzRegression, ExpertCodec) {
  std::vector<std::string> inputs;
  for (const auto& entry : std::filesystem::directory_iterator(
           SWITCHYARD_SOURCE_DIR "/tests/fuzz/corpus/expert_codec")) {
    auto bytes = ReadFile(entry.path().string(), 1 << 20);
    ASSERT_THAT(bytes, testing::IsOk());
    inputs.push_back(*std::move(bytes));
  }
  ASSERT_GE(inputs.size(), 8);
  for (const std::string& input : inputs) {
    for (size_t n = 0; n <= input.size(); ++n) RunTarget(input.substr(0, n));
    std::string changed = input;
    for (size_t i = 0; i < input.size(); ++i) {
      // Every bit, and the bytes that are most often edges.
      for (const int value : {input[i] ^ 1, input[i] ^ 2, input[i] ^ 4,
                              input[i] ^ 8, input[i] ^ 16, input[i] ^ 32,
                              input[i] ^ 64, input[i] ^ 128, 0, 0x7f, 0xff}) {
        changed[i] = static_cast<char>(value);
        RunTarget(changed);
      }
      changed[i] = input[i];
    }
    for (const std::string& other : inputs) RunTarget(input + other);
  }
}

}  // namespace
}  // namespace switchyard::fuzz
