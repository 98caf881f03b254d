// The fuzz targets on the corpus and on every small change of some inputs, in
// every build: what the fuzzer once found stays found.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "gtest/gtest.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/matchers.h"

namespace switchyard::fuzz {
namespace {

using testing::IsOk;
using Target = std::function<void(absl::Span<const uint8_t>)>;

void Run(const Target& target, const std::string& bytes) {
  target(absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(bytes.data()),
                             bytes.size()));
}

// The files of tests/`folder`, at least one.
std::vector<std::string> Inputs(const std::string& folder) {
  std::vector<std::string> inputs;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::string(SWITCHYARD_SOURCE_DIR) + "/tests/" + folder)) {
    auto bytes = ReadFile(entry.path().string(), 1 << 20);
    EXPECT_THAT(bytes, IsOk());
    inputs.push_back(*std::move(bytes));
  }
  EXPECT_FALSE(inputs.empty()) << folder;
  return inputs;
}

// `input`, each of its prefixes, and it with each of its bits flipped; of long
// ones some 4000 of each.
void RunAllSmallChanges(const Target& target, const std::string& input) {
  Run(target, input);
  const size_t step = 1 + input.size() / 4000;
  for (size_t n = 0; n < input.size(); n += step) {
    Run(target, input.substr(0, n));
  }
  std::string flipped = input;
  const size_t bit_step = 1 + input.size() * 8 / 4000;
  for (size_t bit = 0; bit < input.size() * 8; bit += bit_step) {
    flipped[bit / 8] ^= 1 << (bit % 8);
    Run(target, flipped);
    flipped[bit / 8] ^= 1 << (bit % 8);
  }
}

TEST(FuzzRegression, Safetensors) {
  for (const std::string& input : Inputs("fuzz/corpus/safetensors")) {
    RunAllSmallChanges(FuzzSafetensors, input);
  }
}

TEST(FuzzRegression, Config) {
  for (const std::string& input : Inputs("fuzz/corpus/config")) {
    RunAllSmallChanges(FuzzConfig, input);
  }
  for (const std::string& input : Inputs("fixtures/configs")) {
    RunAllSmallChanges(FuzzConfig, input);
  }
  RunAllSmallChanges(FuzzConfig, testing::SmallConfigJson());
}

TEST(FuzzRegression, Json) {
  for (const std::string& input : Inputs("fuzz/corpus/json")) {
    RunAllSmallChanges(FuzzJson, input);
  }
}

TEST(FuzzRegression, Manifest) {
  for (const std::string& input : Inputs("fuzz/corpus/manifest")) {
    RunAllSmallChanges(FuzzManifest, input);
  }
}

}  // namespace
}  // namespace switchyard::fuzz
