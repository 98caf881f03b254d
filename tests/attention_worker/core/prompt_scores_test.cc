// Logprobs of a prompt's own tokens, with a model whose state gives away every
// token that was read twice, left out, or read into another state.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "attention_worker/sampling/sampler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/core/step_loop_rig.h"
#include "tests/testing/matchers.h"
#include "tests/testing/recording_sink.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::TokenRecord;

constexpr int64_t kVocab = StepLoopRig::kVocab;

Tokens Prompt(int64_t n) {
  Tokens tokens;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<int32_t>((i * i + 3 * i) % kVocab));
  }
  return tokens;
}

// With drafts and without.
class PromptScoresTest : public ::testing::TestWithParam<bool>,
                         protected StepLoopRig {
 protected:
  PromptScoresTest()
      : StepLoopRig(
            {.drafts = GetParam() ? 3 : 0, .chunked_prefill_size = 100}) {}

  std::shared_ptr<TokenRecord> Ask(const Tokens& prompt, int64_t from,
                                   Tokens resumed = {}) {
    GenerationRequest request = Request(prompt, 6);
    request.resumed_output_ids = std::move(resumed);
    request.want_logprobs = true;
    request.num_top_logprobs = 3;
    request.prompt_logprobs_from = from;
    return Add(std::move(request));
  }

  // The prompt's tokens from `from` on with their own scores, then the output.
  void Check(const TokenRecord& record, const Tokens& prompt, int64_t from,
             int64_t outputs) {
    const auto tokens = record.tokens();
    const int64_t scored =
        from < 1 ? 0 : static_cast<int64_t>(prompt.size()) - from;
    ASSERT_EQ(static_cast<int64_t>(tokens.size()), scored + outputs);
    const absl::Span<const int32_t> all = prompt;
    for (int64_t i = 0; i < scored; ++i) {
      const GeneratedToken& token = tokens[i];
      ASSERT_EQ(token.position, from + i);
      const SampledToken expected = ScoreToken(
          runner_.LogitsAfter(all.first(from + i)), prompt[from + i], 3);
      EXPECT_EQ(token.token.id, expected.id);
      EXPECT_EQ(token.token.logprob, expected.logprob);
      EXPECT_EQ(token.token.rank, expected.rank);
      EXPECT_GE(token.token.rank, 1);
      EXPECT_EQ(token.token.top_logprobs, expected.top_logprobs);
    }
    for (int64_t i = scored; i < scored + outputs; ++i) {
      EXPECT_GE(tokens[i].position, static_cast<int64_t>(prompt.size()));
      EXPECT_EQ(tokens[i].token.rank, 0);
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Drafts, PromptScoresTest, ::testing::Bool());

TEST_P(PromptScoresTest, AreThoseOfTheTokensBefore) {
  const Tokens prompt = Prompt(333);
  Tokens answer;
  // Also of a prompt that is cached by now.
  for (const int64_t from : {1, 2, 64, 65, 100, 331, 332, 333, 1}) {
    const auto record = Ask(prompt, from);
    StepUntilEmpty();
    ASSERT_THAT(record->status(), IsOk());
    Check(*record, prompt, from, 6);
    Tokens output = record->ids();
    output.erase(output.begin(), output.end() - 6);
    if (answer.empty()) answer = output;
    EXPECT_EQ(output, answer) << from;
  }
  const auto plain = Ask(prompt, -1);
  StepUntilEmpty();
  EXPECT_EQ(plain->ids(), answer);
}

TEST_P(PromptScoresTest, StandBesideRequestsThatDoNotWantThem) {
  const Tokens a = Prompt(200), b = Prompt(150), c = Prompt(90);
  const auto first = Ask(a, 5);
  const auto second = Ask(b, -1);
  const auto third = Ask(c, 1);
  StepUntilEmpty();
  Check(*first, a, 5, 6);
  Check(*second, b, -1, 6);
  Check(*third, c, 1, 6);
}

TEST_P(PromptScoresTest, AReplayGivesThemAgain) {
  const Tokens prompt = Prompt(80);
  const auto whole = Ask(prompt, 70);
  StepUntilEmpty();
  Tokens output = whole->ids();
  output.erase(output.begin(), output.end() - 6);
  const auto replay = Ask(prompt, 70, {output[0], output[1]});
  StepUntilEmpty();
  Check(*replay, prompt, 70, 4);
  EXPECT_EQ(replay->ids().back(), output.back());
}

TEST_P(PromptScoresTest, AFlushForgetsPrefixes) {
  Tokens prompt = Prompt(500);
  const auto first = Ask(prompt, -1);
  StepUntilEmpty();
  for (const int32_t id : first->ids()) prompt.push_back(id);
  prompt.push_back(1);
  const auto warm = Ask(prompt, -1);
  StepUntilEmpty();
  EXPECT_EQ(warm->usage().cached_prompt_tokens, 505);
  loop_->FlushCache();
  EXPECT_EQ(memory_->used_bytes(), 0);
  const auto cold = Ask(prompt, -1);
  StepUntilEmpty();
  EXPECT_EQ(cold->usage().cached_prompt_tokens, 0);
  EXPECT_EQ(cold->ids(), warm->ids());
}

}  // namespace
}  // namespace switchyard::attention_worker
