#include "switchyard/plan/imbalance.h"

#include "gtest/gtest.h"

namespace switchyard::plan {
namespace {

TEST(BusiestOverMeanTest, NobodyIsBusierWhereNothingIsLeftToChance) {
  EXPECT_EQ(BusiestOverMean(10, 1, 1), 1);
  EXPECT_EQ(BusiestOverMean(1, 4, 1), 4);  // one works, the mean is a quarter
  EXPECT_EQ(BusiestOverMean(1, 4, 9), 4);
}

// Ten experts on two workers: the mean of max(k, 10 - k), k binomial, is
// 6.230; by hand from the binomial coefficients.
TEST(BusiestOverMeanTest, TwoWorkersAreBinomial) {
  EXPECT_NEAR(BusiestOverMean(10, 2, 1), 6.230 / 5, 0.03);
}

// Held by both, the experts are shared evenly.
TEST(BusiestOverMeanTest, ACopyEverywhereIsEven) {
  EXPECT_EQ(BusiestOverMean(10, 2, 2), 1);
  EXPECT_EQ(BusiestOverMean(64, 4, 4), 1);
}

TEST(BusiestOverMeanTest, CopiesAndMoreExpertsEvenOut) {
  const double one = BusiestOverMean(10, 8, 1);
  EXPECT_LT(BusiestOverMean(10, 8, 2), 0.8 * one);
  EXPECT_LT(BusiestOverMean(139, 8, 1), 0.65 * one);
  EXPECT_EQ(BusiestOverMean(10, 8, 1), one);
}

}  // namespace
}  // namespace switchyard::plan
