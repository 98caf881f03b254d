#include "attention_worker/moe/holder_health.h"

#include <algorithm>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

constexpr absl::Duration kUsual = absl::Microseconds(300);
constexpr absl::Duration kSlow = absl::Milliseconds(5);

class HolderHealthTest : public ::testing::Test {
 protected:
  HolderHealth Live() {
    HolderHealth health(options_);
    health.Connected("one", now_);
    return health;
  }
  HolderHealth Ejected() {
    HolderHealth health = Live();
    EXPECT_TRUE(health.Hangs(now_));
    return health;
  }

  HolderHealthOptions options_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
};

TEST_F(HolderHealthTest, SlowAnswersInARowEject) {
  HolderHealth health = Live();
  for (int i = 1; i < options_.max_strikes; ++i) {
    EXPECT_FALSE(health.Answered(kSlow, kUsual, now_)) << i;
  }
  EXPECT_TRUE(health.Answered(kSlow, kUsual, now_));
  EXPECT_EQ(health.state(), HolderState::kEjected);
  EXPECT_FALSE(health.Answered(kSlow, kUsual, now_)) << "it is ejected already";
}

TEST_F(HolderHealthTest, QuickAnswersMakeUpForSlowOnes) {
  HolderHealth health = Live();
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(health.Answered(kSlow, kUsual, now_));
    EXPECT_FALSE(health.Answered(kUsual, kUsual, now_));
    EXPECT_FALSE(health.Answered(kUsual, kUsual, now_));
  }
  EXPECT_EQ(health.state(), HolderState::kLive);
}

TEST_F(HolderHealthTest, WithoutPeersNobodyIsSlow) {
  HolderHealth health = Live();
  for (int i = 0; i < 100; ++i) {
    health.Answered(absl::Seconds(1), absl::InfiniteDuration(), now_);
  }
  EXPECT_EQ(health.state(), HolderState::kLive);
}

TEST_F(HolderHealthTest, ProbesInARowLetItBack) {
  HolderHealth health = Ejected();
  EXPECT_FALSE(health.ProbeDue(now_));
  EXPECT_TRUE(health.ProbeDue(now_ + options_.min_probe_interval));
  for (int i = 1; i < options_.probes_to_pass; ++i) {
    health.ProbeSent();
    EXPECT_FALSE(health.ProbeDue(now_ + absl::Hours(1)));
    EXPECT_FALSE(health.ProbePassed(now_));
    EXPECT_TRUE(health.ProbeDue(now_)) << "it is wanted back";
  }
  EXPECT_TRUE(health.ProbePassed(now_));
  EXPECT_EQ(health.state(), HolderState::kLive);
}

TEST_F(HolderHealthTest, FailedProbesBeginAgainAndComeLessOften) {
  HolderHealth health = Ejected();
  EXPECT_FALSE(health.ProbePassed(now_));
  absl::Duration wait = options_.min_probe_interval;
  for (int i = 0; i < 12; ++i) {
    health.ProbeSent();
    health.ProbeFailed(now_);
    wait = std::min(2 * wait, options_.max_probe_interval);
    EXPECT_EQ(health.probe_at(), now_ + wait);
  }
  for (int i = 1; i < options_.probes_to_pass; ++i) {
    EXPECT_FALSE(health.ProbePassed(now_)) << "the earlier one does not count";
  }
  EXPECT_TRUE(health.ProbePassed(now_));
}

TEST_F(HolderHealthTest, AnAnswerAfterAllIsWorthAProbe) {
  HolderHealth health = Ejected();
  health.AnsweredLate(now_);
  EXPECT_TRUE(health.ProbeDue(now_));
}

TEST_F(HolderHealthTest, DistrustLastsUntilAnotherProcessIsThere) {
  HolderHealth health = Live();
  EXPECT_TRUE(health.Distrust());
  EXPECT_FALSE(health.Distrust()) << "it was already";
  EXPECT_FALSE(health.ProbePassed(now_));
  EXPECT_FALSE(health.Connected("one", now_)) << "the same process";
  EXPECT_EQ(health.state(), HolderState::kDistrusted);
  EXPECT_TRUE(health.Connected("two", now_));
  EXPECT_EQ(health.state(), HolderState::kLive);
}

TEST_F(HolderHealthTest, WhoJoinsIsTriedOutAsOftenAsAsked) {
  options_.join_probes = 2;
  HolderHealth health = Live();
  EXPECT_EQ(health.state(), HolderState::kJoining);
  EXPECT_TRUE(health.ProbeDue(now_));
  EXPECT_FALSE(health.ProbePassed(now_));
  EXPECT_FALSE(health.Connected("one", now_)) << "nothing new";
  EXPECT_TRUE(health.ProbePassed(now_));
  EXPECT_EQ(health.state(), HolderState::kLive);
}

}  // namespace
}  // namespace switchyard::attention_worker
