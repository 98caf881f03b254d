// Drafts in the step loop, with a model whose state gives away every token that
// was read twice, left out, or read into another state.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/core/step_loop_rig.h"
#include "tests/testing/matchers.h"
#include "tests/testing/recording_sink.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::TokenRecord;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int64_t kDrafts = 3;

class DraftingTest : public ::testing::Test, protected StepLoopRig {
 protected:
  DraftingTest()
      : StepLoopRig(
            {.drafts = kDrafts, .wrong_draft = [this](int64_t position) {
               return wrong_ && wrong_(position);
             }}) {}

  // The sizes of the chunks of the first (only) sequence.
  std::vector<int64_t> Sizes() const {
    std::vector<int64_t> sizes;
    for (const auto& step : runner_.steps()) sizes.push_back(step[0]);
    return sizes;
  }
  std::function<bool(int64_t)> wrong_;
};

TEST_F(DraftingTest, RightOnesComeFourAtATime) {
  const auto record = Add(Request({1, 2, 3}, 10));
  StepUntilEmpty();
  EXPECT_EQ(record->ids(), Expected({1, 2, 3}, 10));
  // The prompt's step gives a token; then 4, 4, and the last one needs none
  // (its drafts could never be read).
  EXPECT_THAT(Sizes(), ElementsAre(3, 4, 4, 1));
  EXPECT_THAT(registry_->Expose(),
              HasSubstr("vllm:spec_decode_num_accepted_tokens_total"
                        "{engine=\"0\",model_name=\"fake\"} 6"));
}

TEST_F(DraftingTest, WrongOnesCostAStepAndNothingElse) {
  wrong_ = [](int64_t) { return true; };
  const auto record = Add(Request({1, 2, 3}, 6));
  StepUntilEmpty();
  EXPECT_EQ(record->ids(), Expected({1, 2, 3}, 6));
  EXPECT_THAT(Sizes(), ElementsAre(3, 4, 4, 3, 2, 1));
}

TEST_F(DraftingTest, EveryPatternOfWrongOnes) {
  for (int64_t pattern = 0; pattern < 64; ++pattern) {
    wrong_ = [pattern](int64_t position) {
      return (pattern >> position % 6 & 1) != 0;
    };
    Start();
    // Across the ends of pages.
    const Tokens prompt(55, static_cast<int32_t>(pattern % kVocab));
    const auto record = Add(Request(prompt, 90));
    StepUntilEmpty();
    EXPECT_EQ(record->ids(), Expected(prompt, 90)) << pattern;
  }
}

TEST_F(DraftingTest, NearTheEndOfTheContext) {
  for (int64_t room = 1; room <= 8; ++room) {
    const auto record = Add(Request(Tokens(2000 - room, 7), 100));
    StepUntilEmpty();
    EXPECT_THAT(record->status(), IsOk());
    EXPECT_THAT(record->ids(), SizeIs(room));
    EXPECT_EQ(record->reason(), FinishReason::kLength);
  }
}

TEST_F(DraftingTest, NothingBehindAStopToken) {
  const Tokens expected = Expected({4, 4}, 8);
  for (size_t stop = 0; stop < expected.size(); ++stop) {
    GenerationRequest request = Request({4, 4}, 8);
    request.stop_token_ids = {expected[stop]};
    const size_t first =
        std::find(expected.begin(), expected.end(), expected[stop]) -
        expected.begin();
    const auto record = Add(request);
    StepUntilEmpty();
    EXPECT_EQ(record->ids(),
              Tokens(expected.begin(), expected.begin() + first + 1));
    EXPECT_EQ(record->reason(), FinishReason::kStop);
    // What was kept of it is right: the fake checks what it goes on from.
    Tokens next = {4, 4};
    next.insert(next.end(), expected.begin(), expected.begin() + first + 1);
    next.push_back(1);
    const auto turn = Add(Request(next, 4));
    StepUntilEmpty();
    EXPECT_EQ(turn->ids(), Expected(next, 4));
  }
}

TEST_F(DraftingTest, SampledTokensAndLogprobsAreThoseWithoutDrafts) {
  const auto run = [this](bool drafts) {
    wrong_ = [drafts](int64_t position) {
      return !drafts || position % 4 == 0;
    };
    Start();
    GenerationRequest request = Request({9, 8, 7}, 60);
    request.sampling.temperature = 1.3;
    request.sampling.top_p = 0.9;
    request.sampling.seed = 42;
    request.sampling.frequency_penalty = 0.5;
    request.sampling.repetition_penalty = 1.2;
    request.want_logprobs = true;
    request.num_top_logprobs = 3;
    const size_t before = runner_.steps().size();
    const auto record = Add(request);
    StepUntilEmpty();
    return std::make_pair(record->tokens(), runner_.steps().size() - before);
  };
  const auto [plain, plain_steps] = run(false);
  const auto [drafted, drafted_steps] = run(true);
  ASSERT_THAT(plain, SizeIs(60));
  ASSERT_THAT(drafted, SizeIs(60));
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(drafted[i].token.id, plain[i].token.id) << i;
    EXPECT_EQ(drafted[i].token.logprob, plain[i].token.logprob) << i;
    EXPECT_EQ(drafted[i].token.top_logprobs, plain[i].token.top_logprobs) << i;
    EXPECT_EQ(drafted[i].position, plain[i].position) << i;
  }
  EXPECT_LT(drafted_steps, plain_steps);
}

TEST_F(DraftingTest, WithoutTheHeadsExpertsEverybodyGoesOn) {
  head_.status = absl::UnavailableError("layer 2, expert 7 has no holder");
  const auto first = Add(Request({1, 2, 3}, 10));
  StepUntilEmpty();
  EXPECT_EQ(first->ids(), Expected({1, 2, 3}, 10));
  std::vector<int64_t> sizes = Sizes();
  EXPECT_THAT(std::vector<int64_t>(sizes.begin() + 1, sizes.end()), Each(1));
  // Back again: it drafts, though not at once.
  head_.status = absl::OkStatus();
  clock_.Advance(absl::Seconds(20));
  const size_t before = runner_.steps().size();
  const auto second = Add(Request({1, 2, 3, 4}, 10));
  StepUntilEmpty();
  EXPECT_EQ(second->ids(), Expected({1, 2, 3, 4}, 10));
  EXPECT_EQ(runner_.steps().size() - before, 4u);
}

TEST_F(DraftingTest, ASequenceThatLosesItsStateReadsAgain) {
  // Room for about three of four.
  Start(runner_.state_shape().Costs().BytesFor(150) * 7 / 2);
  std::vector<std::pair<Tokens, std::shared_ptr<TokenRecord>>> requests;
  for (int32_t i = 0; i < 4; ++i) {
    const Tokens prompt(60 + i, i);
    requests.emplace_back(prompt, Add(Request(prompt, 90)));
  }
  StepUntilEmpty();
  for (const auto& [prompt, record] : requests) {
    EXPECT_EQ(record->ids(), Expected(prompt, 90));
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
