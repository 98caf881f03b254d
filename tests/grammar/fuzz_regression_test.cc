// The fuzz target of grammars on its corpus, and on every prefix of it, in
// every build.

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
  FuzzGrammar(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
}

TEST(FuzzRegression, Grammar) {
  std::vector<std::string> inputs;
  for (const auto& entry : std::filesystem::directory_iterator(
           SWITCHYARD_SOURCE_DIR "/tests/fuzz/corpus/grammar")) {
    auto bytes = ReadFile(entry.path().string(), 1 << 20);
    ASSERT_THAT(bytes, testing::IsOk());
    inputs.push_back(*std::move(bytes));
  }
  ASSERT_GE(inputs.size(), 7u);
  for (const std::string& input : inputs) {
    for (size_t n = 0; n <= input.size(); ++n) RunTarget(input.substr(0, n));
    for (size_t i = 1; i < input.size(); i += 3) {
      std::string changed = input;
      changed.erase(i, 1);
      RunTarget(changed);
      RunTarget(input.substr(0, i) + input.substr(i / 2));
    }
  }
}

}  // namespace
}  // namespace switchyard::fuzz
