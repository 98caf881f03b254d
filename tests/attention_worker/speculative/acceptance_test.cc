#include "attention_worker/speculative/acceptance.h"

#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

TEST(AcceptanceTest, WhatFollowsAWrongTokenSaysNothing) {
  Acceptance acceptance(3);
  acceptance.Observe(/*drafted=*/3, /*accepted=*/1, /*weight=*/0.5);
  EXPECT_DOUBLE_EQ(acceptance.rate(0), (Acceptance::kPrior + 1) / 2);
  EXPECT_DOUBLE_EQ(acceptance.rate(1), Acceptance::kPrior / 2);
  EXPECT_DOUBLE_EQ(acceptance.rate(2), Acceptance::kPrior);
}

TEST(AcceptanceTest, NorWhatWasNotDrafted) {
  Acceptance acceptance(3);
  acceptance.Observe(2, 2, 1.0);
  EXPECT_EQ(acceptance.rate(0), 1);
  EXPECT_EQ(acceptance.rate(1), 1);
  EXPECT_EQ(acceptance.rate(2), Acceptance::kPrior);
  acceptance.Observe(1, 0, 1.0);
  EXPECT_EQ(acceptance.rate(0), 0);
  EXPECT_EQ(acceptance.rate(1), 1);
}

TEST(AcceptanceTest, FollowsTheText) {
  Acceptance acceptance(1);
  for (int i = 0; i < 1000; ++i) acceptance.Observe(1, i % 4 != 0, 0.02);
  EXPECT_NEAR(acceptance.rate(0), 0.75, 0.05);
}

}  // namespace
}  // namespace switchyard::attention_worker
