#include "attention_worker/sampling/ranked_row.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "attention_worker/sampling/top_candidates.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Every prefix of the row in Better()'s order, against a sort.
void ExpectRanks(const std::vector<float>& row, double temperature) {
  const float max = GreatestLogit(row);
  const Weight weight(max, temperature);
  std::vector<Candidate> sorted =
      TopCandidates(row, static_cast<int64_t>(row.size()));
  std::erase_if(sorted,
                [&](const Candidate& c) { return weight(c.logit) == 0; });
  RankedRow ranked(row, weight);
  ASSERT_NEAR(ranked.All().weight, weight.Sum(row), 1e-9 * ranked.All().weight);
  double sum = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const double own = weight(sorted[i].logit);
    if (own < 1e-9 * sum) break;  // rounding hides it
    // The entry at which the sum passes what is before it and half its own.
    const int32_t found = ranked.EntryBeyond(sum + own / 2, ranked.All());
    ASSERT_EQ(found, sorted[i].id) << i;
    const auto prefix =
        ranked.FirstCount(static_cast<int64_t>(i) + 1, ranked.All());
    sum += own;
    ASSERT_NEAR(prefix.weight, sum, 1e-9 * sum);
    // Within a prefix nothing beyond it is found.
    ASSERT_EQ(ranked.EntryBeyond(1e300, prefix), sorted[i].id);
    ASSERT_NEAR(ranked.FirstWeight(sum - own / 2, ranked.All()).weight, sum,
                1e-9 * sum);
  }
}

TEST(RankedRowTest, EqualsASort) {
  std::mt19937 random(3);
  for (const float spread : {0.001f, 1.0f, 50.0f, 1e6f}) {
    std::normal_distribution<float> normal(0, spread);
    std::vector<float> row(300);
    for (float& logit : row) logit = normal(random);
    for (size_t i = 0; i < row.size(); i += 4) row[i] = row[i / 2];
    ExpectRanks(row, 1.0);
    ExpectRanks(row, 0.01);
  }
}

TEST(RankedRowTest, TiesGoByIdAndZeroHasNoSign) {
  ExpectRanks(std::vector<float>(50, 2.5f), 1.0);
  ExpectRanks({0.0f, -0.0f, 1.0f, 0.0f, -0.0f}, 1.0);
}

TEST(RankedRowTest, InfiniteAndUndefinedEntries) {
  ExpectRanks({1, -kInf, kNan, 2, -1}, 1.0);
  ExpectRanks({kInf, 5, kInf, kNan}, 1.0);
  ExpectRanks({-kInf, kNan, -kInf}, 1.0);
}

TEST(RankedRowTest, FromLogitKeepsThoseAtTheBar) {
  const std::vector<float> row = {0, -1, -1, -2, -3};
  RankedRow ranked(row, Weight(0, 1));
  const auto last_from = [&](float least, const RankedRow::Prefix& within) {
    return ranked.EntryBeyond(1e300, ranked.FromLogit(least, within));
  };
  EXPECT_EQ(last_from(-1, ranked.All()), 2);
  EXPECT_EQ(last_from(-1.001f, ranked.All()), 2);
  EXPECT_EQ(last_from(-0.999f, ranked.All()), 0);
  EXPECT_EQ(last_from(-1.5f, ranked.All()), 2);
  EXPECT_EQ(last_from(-kInf, ranked.All()), 4);
  EXPECT_EQ(last_from(2, ranked.All()), 0);
  // Not beyond what it is within.
  const auto two = ranked.FirstCount(2, ranked.All());
  EXPECT_EQ(last_from(-1, two), 1);
  EXPECT_EQ(last_from(-5, two), 1);
  EXPECT_EQ(last_from(-0.5f, two), 0);
}

}  // namespace
}  // namespace switchyard::attention_worker
