#include "attention_worker/sampling/token_rules.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "attention_worker/sampling/sampler.h"
#include "base/compute_pool.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::ElementsAre;

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr int64_t kPrompt = 10;  // tokens

SampledToken Sample(const std::vector<float>& logits,
                    const SamplingParams& params, int64_t index = 0) {
  TokenHistory history;
  history.prompt_tokens = kPrompt;
  return SampleToken(logits, params, history, kPrompt + index, true, 0);
}

TEST(TokenRulesTest, BiasesAreAddedBehindThePenaltiesAndRoundedOnce) {
  TokenRules rules;
  rules.logit_bias = {{1, 0.1f}, {3, -100}};
  std::vector<float> logits = {1, 2, 3, 4};
  ApplyRules(rules, 0, absl::MakeSpan(logits));
  EXPECT_THAT(logits,
              ElementsAre(1, static_cast<float>(2.0 + double{0.1f}), 3, -96));

  // Token 0 leads by 2; a presence penalty of 2 leaves a tie, which the bias
  // breaks.
  SamplingParams params = {.temperature = 0, .presence_penalty = 2};
  params.rules.logit_bias = {{1, 0.001f}};
  TokenHistory history;
  history.generated[0] = 1;
  EXPECT_EQ(SampleToken({{3.0f, 1.0f}}, params, history, 0, false, 0).id, 1);
  params.rules = {};
  EXPECT_EQ(SampleToken({{3.0f, 1.0f}}, params, history, 0, false, 0).id, 0);
}

TEST(TokenRulesTest, LogprobsAreThoseOfTheRawLogits) {
  SamplingParams params = {.temperature = 0};
  params.rules.logit_bias = {{0, 50}};
  const SampledToken token = Sample({0, 0}, params);
  EXPECT_EQ(token.id, 0);
  EXPECT_FLOAT_EQ(token.logprob, std::log(0.5f));
}

TEST(TokenRulesTest, OnlyAllowedTokensAreChosen) {
  TokenRules rules;
  rules.allowed_ids = {2, 0, 2};
  std::vector<float> logits = {1, 9, 3, 4};
  ApplyRules(rules, 0, absl::MakeSpan(logits));
  EXPECT_THAT(logits, ElementsAre(1, kNever, 3, kNever));
  for (const double temperature : {0.0, 5.0}) {
    SamplingParams params = {.temperature = temperature};
    params.rules.allowed_ids = {2, 0};
    for (int index = 0; index < 50; ++index) {
      const int32_t id = Sample({1, 99, 3, 99}, params, index).id;
      EXPECT_TRUE(id == 0 || id == 2) << id;
    }
  }
}

TEST(TokenRulesTest, TheEndComesNoEarlierThanMinTokens) {
  SamplingParams params = {.temperature = 0};
  params.rules.min_tokens = 3;
  params.rules.late_ids = {1, 2};
  for (int64_t index = 0; index < 3; ++index) {
    EXPECT_EQ(Sample({0, 5, 4, 1}, params, index).id, 3) << index;
  }
  EXPECT_EQ(Sample({0, 5, 4, 1}, params, 3).id, 1);
  // A bias does not bring it back.
  params.rules.logit_bias = {{1, 100}};
  EXPECT_EQ(Sample({0, 5, 4, 1}, params, 2).id, 3);
}

// The output's tokens, each of which the model would choose as given unless a
// rule says otherwise.
std::vector<int32_t> Output(const SamplingParams& params,
                            const std::vector<int32_t>& wishes) {
  TokenHistory history;
  history.prompt_tokens = kPrompt;
  std::vector<int32_t> output;
  for (size_t i = 0; i < wishes.size(); ++i) {
    std::vector<float> logits(20, 0);
    logits[static_cast<size_t>(wishes[i])] = 9;
    const int64_t index = static_cast<int64_t>(i);
    output.push_back(
        SampleToken(logits, params, history, kPrompt + index, false, 0).id);
    Observe(params.rules, index, output.back(), &history.progress);
  }
  return output;
}

SamplingParams Budget(int64_t tokens, int32_t begin_id = -1) {
  SamplingParams params = {.temperature = 0};
  params.rules.thinking = ThinkingBudget{.tokens = tokens,
                                         .begin_id = begin_id,
                                         .end_id = 8,
                                         .closing = {7, 8, 9}};
  return params;
}

TEST(ThinkingBudgetTest, ClosesTheReasoningWhenItIsSpent) {
  EXPECT_THAT(Output(Budget(2), {1, 2, 3, 4, 5, 6}),
              ElementsAre(1, 2, 7, 8, 9, 6));
  EXPECT_THAT(Output(Budget(0), {1, 2, 3, 4}), ElementsAre(7, 8, 9, 4));
}

TEST(ThinkingBudgetTest, LeavesReasoningAloneThatEndsInTime) {
  EXPECT_THAT(Output(Budget(3), {1, 2, 8, 4, 5, 6}),
              ElementsAre(1, 2, 8, 4, 5, 6));
  // One token later is too late.
  EXPECT_THAT(Output(Budget(2), {1, 2, 8, 4, 5, 6}),
              ElementsAre(1, 2, 7, 8, 9, 6));
}

TEST(ThinkingBudgetTest, CountsFromTheTokenThatBeginsTheReasoning) {
  EXPECT_THAT(Output(Budget(2, 6), {6, 1, 2, 3, 4, 5}),
              ElementsAre(6, 1, 2, 7, 8, 9));
  // No reasoning, nothing to close.
  EXPECT_THAT(Output(Budget(2, 6), {1, 6, 2, 3, 4, 5}),
              ElementsAre(1, 6, 2, 3, 4, 5));
  EXPECT_THAT(Output(Budget(0, 6), {6, 1, 2, 3, 4}),
              ElementsAre(6, 7, 8, 9, 4));
}

// All rules at once: with any drafts, right or wrong, the tokens are those that
// are chosen one by one.
TEST(TokenRulesTest, DraftsChangeNoToken) {
  constexpr int64_t kVocab = 50, kRows = 8;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> logits(kRows * kVocab);
  for (float& logit : logits) logit = normal(random);
  const absl::Span<const float> rows = logits;
  SamplingParams params = {.temperature = 1, .presence_penalty = 1, .seed = 2};
  params.rules.logit_bias = {{4, 2}, {5, -100}};
  params.rules.min_tokens = 4;
  params.rules.late_ids = {11, 12, 13, 14, 15, 16};
  params.rules.thinking =
      ThinkingBudget{.tokens = 3, .end_id = 20, .closing = {19, 20}};
  TokenHistory history;
  history.prompt_tokens = kPrompt;
  std::vector<int32_t> expected;
  TokenHistory grown = history;
  for (int64_t row = 0; row < kRows; ++row) {
    expected.push_back(SampleToken(rows.subspan(row * kVocab, kVocab), params,
                                   grown, kPrompt + row, false, 0)
                           .id);
    ++grown.generated[expected.back()];
    Observe(params.rules, row, expected.back(), &grown.progress);
  }
  ASSERT_EQ(expected[3], 19);
  ASSERT_EQ(expected[4], 20);
  const auto pool = NewThreadPool(1, "sample");
  for (size_t right = 0; right < kRows; ++right) {
    std::vector<int32_t> drafts(expected.begin(), expected.end() - 1);
    // The wrong one even claims that the reasoning has ended.
    if (right < drafts.size() && expected[right] != 20) drafts[right] = 20;
    if (right < drafts.size() && expected[right] == 20) drafts[right] = 1;
    const SampleJob job{.logits = logits,
                        .drafts = drafts,
                        .params = &params,
                        .history = &history,
                        .position = kPrompt};
    std::vector<SampledToken> tokens;
    SampleTokens({&job, 1}, pool.get(), absl::MakeSpan(&tokens, 1));
    ASSERT_EQ(tokens.size(), right + 1);
    for (size_t i = 0; i <= right; ++i) EXPECT_EQ(tokens[i].id, expected[i]);
    EXPECT_FALSE(history.progress.thinking_over);
    EXPECT_TRUE(history.generated.empty());
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
