#include "router/routing/move_costs.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace switchyard::router {
namespace {

TEST(MoveCostsTest, WhatNobodyKnowsIsNotMoved) {
  EXPECT_FALSE(MoveCosts().MovingIsCheaper(1'000'000, 0));
}

TEST(MoveCostsTest, FollowsWhatWasMeasured) {
  MoveCosts costs;
  // 10,000 tokens a second, and 1 GB in about a second.
  costs.ObserveReading(5'000, absl::Milliseconds(500));
  costs.ObserveMove(1'000'000'000, absl::Milliseconds(1'020));
  EXPECT_TRUE(costs.MovingIsCheaper(2'000, 100'000'000));
  EXPECT_FALSE(costs.MovingIsCheaper(500, 100'000'000));
  // The network gets worse.
  for (int i = 0; i < 40; ++i) {
    costs.ObserveMove(10'000'000, absl::Milliseconds(1'020));
  }
  EXPECT_FALSE(costs.MovingIsCheaper(2'000, 100'000'000));
  // So do the CPUs.
  for (int i = 0; i < 40; ++i) {
    costs.ObserveReading(1'000, absl::Seconds(100));
  }
  EXPECT_TRUE(costs.MovingIsCheaper(2'000, 100'000'000));
}

TEST(MoveCostsTest, AFewTokensAreReadAgain) {
  MoveCosts costs;
  costs.ObserveReading(1'000, absl::Seconds(1));
  EXPECT_FALSE(costs.MovingIsCheaper(10, 1));
  EXPECT_TRUE(costs.MovingIsCheaper(100, 1));
}

TEST(MoveCostsTest, ShortMeasurementsSayNothing) {
  MoveCosts costs;
  costs.ObserveReading(10, absl::Milliseconds(1));  // 10,000 tokens a second
  costs.ObserveReading(100, absl::ZeroDuration());
  costs.ObserveMove(100, absl::ZeroDuration());
  EXPECT_TRUE(costs.MovingIsCheaper(1'000, 100'000'000));
}

}  // namespace
}  // namespace switchyard::router
