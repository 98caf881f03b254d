#include "attention_worker/moe/pair_table.h"

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using State = PairTable::State;
using Outcome = PairTable::Outcome;

// Two rows of two experts, each row a sequence; H = 1.
class PairTableTest : public ::testing::Test {
 protected:
  PairTableTest() {
    request_ = {.layer = 0,
                .num_rows = 2,
                .experts_per_row = 2,
                .hidden_size = 1,
                .rows = rows_,
                .quantized = {},
                .experts = experts_,
                .sequence_of_row = sequence_of_row_,
                .deadlines = deadlines_};
    pairs_.Begin(&request_, /*believe_first=*/false);
  }

  const std::vector<float> rows_ = {1, 2};
  const std::vector<int32_t> experts_ = {3, 4, 4, 5};
  const std::vector<int32_t> sequence_of_row_ = {0, 1};
  const std::vector<absl::Time> deadlines_ = {absl::InfiniteFuture(),
                                              absl::InfiniteFuture()};
  DispatchRequest request_;
  PairTable pairs_;
  const float right_ = 7;
  const float also_right_ = 7;
  const float wrong_ = 8;
  const float odd_ = 9;
};

TEST_F(PairTableTest, OneAnswerIsEnough) {
  EXPECT_EQ(pairs_.num_unfinished(), 4);
  EXPECT_EQ(pairs_.num_wanting(), 4);
  for (int64_t pair = 0; pair < 4; ++pair) pairs_.Sent(pair);
  EXPECT_EQ(pairs_.num_wanting(), 0);
  for (int64_t pair = 0; pair < 4; ++pair) {
    EXPECT_EQ(pairs_.Answered(pair, 0, &right_), Outcome::kAccepted);
    EXPECT_EQ(pairs_.state(pair), State::kDone);
  }
  EXPECT_EQ(pairs_.num_unfinished(), 0);
  EXPECT_EQ(pairs_.unfinished(0) + pairs_.unfinished(1), 0);
  EXPECT_EQ(pairs_.outputs()[2], &right_);
}

TEST_F(PairTableTest, ALostCallLeavesWhatAnotherOneHas) {
  pairs_.Sent(0);
  pairs_.Sent(0);
  pairs_.Lost(0);
  EXPECT_EQ(pairs_.state(0), State::kInFlight);
  pairs_.Lost(0);
  EXPECT_EQ(pairs_.state(0), State::kWaiting);
  EXPECT_TRUE(pairs_.WantsCall(0));
}

TEST_F(PairTableTest, TheFirstOfTwoAnswersCountsAndTheSecondIsCompared) {
  pairs_.Sent(0);
  pairs_.Sent(0);
  EXPECT_EQ(pairs_.Answered(0, 1, &right_), Outcome::kAccepted);
  EXPECT_EQ(pairs_.answered_by(0), 1);
  EXPECT_EQ(pairs_.Answered(0, 0, &also_right_), Outcome::kAgreed);
  EXPECT_EQ(pairs_.outputs()[0], &right_);
  EXPECT_EQ(pairs_.copies(0), 0);
}

TEST_F(PairTableTest, AnAnswerThatDiffersReopensThePairUntilAThirdDecides) {
  pairs_.Sent(0);
  pairs_.Sent(0);
  EXPECT_EQ(pairs_.Answered(0, 1, &wrong_), Outcome::kAccepted);
  EXPECT_EQ(pairs_.num_unfinished(), 3);
  EXPECT_EQ(pairs_.Answered(0, 0, &right_), Outcome::kDiffers);
  EXPECT_EQ(pairs_.num_unfinished(), 4);
  EXPECT_TRUE(pairs_.WantsCall(0));
  EXPECT_EQ(pairs_.dispute(0).calls[0], 1);
  EXPECT_EQ(pairs_.dispute(0).calls[1], 0);
  pairs_.Sent(0);
  EXPECT_FALSE(pairs_.WantsCall(0));
  EXPECT_EQ(pairs_.Answered(0, 2, &also_right_), Outcome::kDecided);
  EXPECT_EQ(pairs_.answered_by(0), 0);
  EXPECT_EQ(pairs_.outputs()[0], &right_);
  EXPECT_EQ(pairs_.num_unfinished(), 3);
}

TEST_F(PairTableTest, ThreeAnswersOfWhichNoTwoAgree) {
  for (int i = 0; i < 3; ++i) pairs_.Sent(0);
  pairs_.Answered(0, 0, &wrong_);
  pairs_.Answered(0, 1, &right_);
  EXPECT_EQ(pairs_.Answered(0, 2, &odd_), Outcome::kNoneAgree);
  EXPECT_EQ(pairs_.state(0), State::kDisputed);
}

TEST_F(PairTableTest, AVerifiedPairWaitsForItsSecondAnswer) {
  pairs_.Verify(0);
  pairs_.Sent(0);
  EXPECT_EQ(pairs_.Answered(0, 0, &right_), Outcome::kHalf);
  EXPECT_EQ(pairs_.num_unfinished(), 4);
  EXPECT_TRUE(pairs_.WantsCall(0)) << "nobody has been asked for it";
  pairs_.Sent(0);
  EXPECT_FALSE(pairs_.WantsCall(0));
  EXPECT_EQ(pairs_.Answered(0, 1, &also_right_), Outcome::kAgreed);
  EXPECT_EQ(pairs_.state(0), State::kDone);
}

TEST_F(PairTableTest, AVerifiedPairMayBeTakenAsItIs) {
  pairs_.Verify(0);
  pairs_.Sent(0);
  pairs_.Answered(0, 0, &right_);
  pairs_.Settle(0, 0);
  EXPECT_EQ(pairs_.state(0), State::kDone);
  EXPECT_EQ(pairs_.outputs()[0], &right_);
}

TEST_F(PairTableTest, WhatIsForgottenIsWantedAgain) {
  pairs_.Sent(0);
  pairs_.Answered(0, 0, &wrong_);
  pairs_.Forget(0);
  EXPECT_EQ(pairs_.state(0), State::kWaiting);
  EXPECT_EQ(pairs_.num_unfinished(), 4);
  EXPECT_EQ(pairs_.outputs()[0], nullptr);
  // One that another call still carries is not.
  pairs_.Sent(1);
  pairs_.Sent(1);
  pairs_.Answered(1, 0, &wrong_);
  pairs_.Forget(1);
  EXPECT_EQ(pairs_.state(1), State::kInFlight);
}

TEST_F(PairTableTest, ASequenceFailsAloneAndForGood) {
  for (int64_t pair = 0; pair < 4; ++pair) pairs_.Sent(pair);
  pairs_.Answered(0, 0, &right_);
  pairs_.FailSequence(0, absl::DeadlineExceededError("late"));
  EXPECT_THAT(pairs_.sequence_status()[0],
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(pairs_.sequence_status()[1], IsOk());
  EXPECT_EQ(pairs_.num_unfinished(), 2);
  EXPECT_EQ(pairs_.Answered(1, 0, &right_), Outcome::kIgnored);
  EXPECT_EQ(pairs_.state(1), State::kFailed);
  EXPECT_EQ(pairs_.Answered(2, 0, &right_), Outcome::kAccepted);
}

}  // namespace
}  // namespace switchyard::attention_worker
