// Runs the fuzz target over its corpus, in builds without a fuzzer.

#include <filesystem>
#include <string>

#include "absl/types/span.h"
#include "base/mapped_file.h"
#include "gtest/gtest.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::router {
namespace {

TEST(FuzzCorpusTest, OpenAiRequests) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::string(SWITCHYARD_SOURCE_DIR) +
           "/tests/fuzz/corpus/openai_request")) {
    const auto text = ReadFile(entry.path().string(), 1 << 20);
    ASSERT_TRUE(text.ok()) << text.status();
    ++files;
    // Also cut short anywhere: still no reason to stop.
    for (size_t size = 0; size <= text->size(); ++size) {
      fuzz::FuzzOpenAiRequest(absl::MakeConstSpan(
          reinterpret_cast<const uint8_t*>(text->data()), size));
    }
  }
  EXPECT_GE(files, 4);
}

}  // namespace
}  // namespace switchyard::router
