#include "attention_worker/layers/gate.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

struct Choice {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Choice Select(const std::vector<float>& logits, int k, bool normalise = true) {
  Choice choice{std::vector<int32_t>(k), std::vector<float>(k)};
  SelectExperts(logits.data(), static_cast<int>(logits.size()), k, normalise,
                choice.experts.data(), choice.weights.data());
  return choice;
}

TEST(SelectExpertsTest, DescendingAndSummingToOne) {
  const Choice choice = Select({0, 2, 1, 3}, 3);
  EXPECT_THAT(choice.experts, ElementsAre(3, 1, 2));
  const double sum = 1 + std::exp(-1.0) + std::exp(-2.0);
  EXPECT_THAT(choice.weights,
              ElementsAre(FloatNear(1 / sum, 1e-6),
                          FloatNear(std::exp(-1.0) / sum, 1e-6),
                          FloatNear(std::exp(-2.0) / sum, 1e-6)));
}

TEST(SelectExpertsTest, WithoutRenormalisationSharesOfAll) {
  const Choice choice = Select({0, 2, 1, 3}, 2, /*normalise=*/false);
  const double sum = 1 + std::exp(-1.0) + std::exp(-2.0) + std::exp(-3.0);
  EXPECT_THAT(choice.experts, ElementsAre(3, 1));
  EXPECT_THAT(choice.weights,
              ElementsAre(FloatNear(1 / sum, 1e-6),
                          FloatNear(std::exp(-1.0) / sum, 1e-6)));
}

TEST(SelectExpertsTest, TiesGoToTheLowerId) {
  EXPECT_THAT(Select({1, 5, 5, 1, 5}, 2).experts, ElementsAre(1, 2));
  EXPECT_THAT(Select({1, 5, 5, 1, 5}, 4).experts, ElementsAre(1, 2, 4, 0));
  EXPECT_THAT(Select({0.0f, -0.0f, 0.0f}, 3).experts, ElementsAre(0, 1, 2));
}

TEST(SelectExpertsTest, ExtremeLogitsStayFinite) {
  const Choice choice = Select({-3e38f, 3e38f, 2e38f, -3e38f}, 2);
  EXPECT_THAT(choice.experts, ElementsAre(1, 2));
  EXPECT_THAT(choice.weights, ElementsAre(1, 0));
}

TEST(SelectExpertsTest, NanIsSmallest) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Select({nan, -7, nan, -8}, 3).experts, ElementsAre(1, 3, 0));
}

TEST(SelectExpertsTest, AsAStableSort) {
  std::minstd_rand random(1);
  for (int round = 0; round < 300; ++round) {
    const int num_experts = 1 + random() % 600;
    const int k = 1 + random() % std::min(num_experts, 12);
    // Few different values: many ties.
    std::vector<float> logits(num_experts);
    for (float& logit : logits) logit = static_cast<float>(random() % 40);
    std::vector<int32_t> expected(num_experts);
    std::iota(expected.begin(), expected.end(), 0);
    std::stable_sort(expected.begin(), expected.end(),
                     [&](int a, int b) { return logits[a] > logits[b]; });
    expected.resize(k);
    EXPECT_EQ(Select(logits, k).experts, expected);
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
