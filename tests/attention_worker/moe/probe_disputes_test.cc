#include "attention_worker/moe/probe_disputes.h"

#include <cstdint>
#include <optional>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::ElementsAre;

const ProbeDisputes::Key kKey = {3, 7};
const std::vector<float> kOne = {1, 2};
const std::vector<float> kOther = {1, 2.5};
const std::vector<float> kThird = {0, 2};

ProbeDisputes::Voter Voter(uint64_t holder, int process = 0) {
  return {.holder = holder, .process = process};
}

TEST(ProbeDisputesTest, OneAgainstOneDecidesNothing) {
  ProbeDisputes disputes;
  EXPECT_TRUE(disputes.Vote(kKey, Voter(1), kOne));
  EXPECT_TRUE(disputes.Vote(kKey, Voter(2), kOther));
  EXPECT_EQ(disputes.Decide(kKey), std::nullopt);
  EXPECT_THAT(disputes.keys(), ElementsAre(kKey));
  EXPECT_TRUE(disputes.Concerns(1));
  EXPECT_FALSE(disputes.Concerns(3));
}

TEST(ProbeDisputesTest, TwoOutvoteOne) {
  ProbeDisputes disputes;
  disputes.Vote(kKey, Voter(1), kOne);
  disputes.Vote(kKey, Voter(2), kOther);
  disputes.Vote(kKey, Voter(3), kOther);
  const std::optional<ProbeDisputes::Verdict> verdict = disputes.Decide(kKey);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(verdict->right, kOther);
  ASSERT_EQ(verdict->wrong.size(), 1U);
  EXPECT_EQ(verdict->wrong[0].holder, 1U);
  EXPECT_FALSE(disputes.Contains(kKey));
}

TEST(ProbeDisputesTest, AsManyOnBothSidesDecideNothing) {
  ProbeDisputes disputes;
  for (const uint64_t holder : {1, 2}) disputes.Vote(kKey, Voter(holder), kOne);
  for (const uint64_t holder : {3, 4}) {
    disputes.Vote(kKey, Voter(holder), kOther);
  }
  EXPECT_EQ(disputes.Decide(kKey), std::nullopt);
  disputes.Vote(kKey, Voter(5), kThird);
  EXPECT_EQ(disputes.Decide(kKey), std::nullopt);
  disputes.Vote(kKey, Voter(6), kOne);
  const std::optional<ProbeDisputes::Verdict> verdict = disputes.Decide(kKey);
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(verdict->right, kOne);
  EXPECT_EQ(verdict->wrong.size(), 3U);
}

// Otherwise one that starts again and again would agree with itself.
TEST(ProbeDisputesTest, AHoldersLastAnswerIsItsOnlyOne) {
  ProbeDisputes disputes;
  disputes.Vote(kKey, Voter(1), kOne);
  disputes.Vote(kKey, Voter(2, 0), kOther);
  disputes.Vote(kKey, Voter(2, 1), kOther);
  EXPECT_EQ(disputes.Decide(kKey), std::nullopt);
  disputes.Vote(kKey, Voter(2, 1), kOne);
  EXPECT_TRUE(disputes.Decide(kKey).has_value());
}

TEST(ProbeDisputesTest, WhoeverWentHasNoVote) {
  ProbeDisputes disputes;
  disputes.Vote(kKey, Voter(1), kOne);
  disputes.Vote(kKey, Voter(2), kOther);
  EXPECT_FALSE(disputes.Keep([](const ProbeDisputes::Voter&) { return true; }));
  EXPECT_TRUE(disputes.Keep(
      [](const ProbeDisputes::Voter& voter) { return voter.holder != 1; }));
  EXPECT_FALSE(disputes.Contains(kKey));
}

TEST(ProbeDisputesTest, IsBounded) {
  ProbeDisputes disputes;
  int kept = 0;
  for (int expert = 0; expert < 10'000; ++expert) {
    if (disputes.Vote({0, expert}, Voter(1), kOne)) ++kept;
  }
  EXPECT_GT(kept, 0);
  EXPECT_LT(kept, 1000);
  EXPECT_TRUE(disputes.Vote({0, 0}, Voter(2), kOther))
      << "those that are there go on";
}

}  // namespace
}  // namespace switchyard::attention_worker
