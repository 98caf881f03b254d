// The trained demo model says, greedily, what HF Transformers said in fp32
// (models/demo/reference_answers.jsonl).

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/json.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/layers/test_model.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::ModelPath;

struct Answer {
  std::vector<int32_t> prompt;
  std::vector<int32_t> output;
  // Least distance between the best and the second-best logit.
  double margin = 0;
};

std::vector<Answer> ReadAnswers() {
  std::vector<Answer> answers;
  std::ifstream file(ModelPath("demo/reference_answers.jsonl"));
  for (std::string line; std::getline(file, line);) {
    const auto json = ParseJson(line);
    EXPECT_THAT(json, IsOk());
    if (!json.ok()) break;
    answers.push_back({(*json)["prompt_ids"].get<std::vector<int32_t>>(),
                       (*json)["output_ids"].get<std::vector<int32_t>>(),
                       (*json)["min_margin"].get<double>()});
  }
  return answers;
}

// Batches of sequences of different lengths, all greedy at once, as a server
// has them: a finished one leaves, the others go on.
TEST(DemoModelTest, AnswersAsTheReference) {
  constexpr size_t kStride = 15;     // every fifteenth answer, 60 in all
  constexpr size_t kMaxTokens = 24;  // of each
  const std::vector<Answer> answers = ReadAnswers();
  ASSERT_GE(answers.size(), 900u);
  TestModel model(ModelPath("demo"), {.threads = 2});

  struct Live {
    const Answer* answer;
    std::unique_ptr<SequenceState> state;
    std::vector<int32_t> next;
    std::vector<int32_t> output;
  };
  std::vector<Live> live;
  for (size_t i = 0; i < answers.size(); i += kStride) {
    // A closer call than this could be decided by rounding.
    if (answers[i].margin < 1e-3) continue;
    live.push_back({&answers[i], model.NewState(4096), answers[i].prompt, {}});
  }
  const size_t sequences = live.size();
  EXPECT_GE(sequences, 50u);
  size_t compared = 0;
  while (!live.empty()) {
    std::vector<SequenceChunk> chunks;
    for (const Live& sequence : live) {
      chunks.push_back(
          {.state = sequence.state.get(), .tokens = sequence.next});
    }
    const std::vector<ChunkResult> results = model.runner().Step(chunks);
    for (size_t i = live.size(); i-- > 0;) {
      ASSERT_THAT(results[i].status, IsOk());
      Live& sequence = live[i];
      sequence.next = {ArgMax(results[i].logits)};
      sequence.output.push_back(sequence.next[0]);
      const std::vector<int32_t>& expected = sequence.answer->output;
      const size_t wanted = std::min(expected.size(), kMaxTokens);
      if (sequence.output.size() < wanted) continue;
      EXPECT_EQ(
          sequence.output,
          std::vector<int32_t>(expected.begin(), expected.begin() + wanted));
      compared += wanted;
      live.erase(live.begin() + static_cast<int64_t>(i));
    }
  }
  EXPECT_GE(compared, 10 * sequences);
}

}  // namespace
}  // namespace switchyard::attention_worker
