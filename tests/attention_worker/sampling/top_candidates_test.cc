#include "attention_worker/sampling/top_candidates.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// By sorting everything.
std::vector<Candidate> Sorted(const std::vector<float>& row, int64_t n) {
  std::vector<Candidate> all;
  for (size_t i = 0; i < row.size(); ++i) {
    all.push_back(
        {std::isnan(row[i]) ? -kInfinity : row[i], static_cast<int32_t>(i)});
  }
  std::sort(all.begin(), all.end(), Better);
  all.resize(std::min<size_t>(n, all.size()));
  return all;
}

void ExpectSame(const std::vector<float>& row, int64_t n) {
  const std::vector<Candidate> expected = Sorted(row, n);
  const int64_t blocks =
      CandidateRow::NumBlocks(static_cast<int64_t>(row.size()));
  std::vector<float> maxima(blocks);
  FindBlockMaxima(row, 0, blocks, absl::MakeSpan(maxima));
  for (const bool prepared : {false, true}) {
    const std::vector<Candidate> found =
        prepared ? TopCandidates(CandidateRow(row, maxima), n)
                 : TopCandidates(row, n);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].id, expected[i].id) << i << " of " << row.size();
      ASSERT_EQ(found[i].logit, expected[i].logit);
    }
  }
}

// Rows of every length around a block, ascending, descending, equal and mixed
// with what is no number: in particular the best may be a block's last entry.
TEST(TopCandidatesTest, EqualsASortedRow) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int size = 1; size < 700; size += size < 300 ? 1 : 37) {
    std::vector<float> row(size);
    for (int kind = 0; kind < 6; ++kind) {
      for (int i = 0; i < size; ++i) {
        switch (kind) {
          case 0:
            row[i] = normal(random);
            break;
          case 1:
            row[i] = static_cast<float>(i);
            break;
          case 2:
            row[i] = static_cast<float>(-i);
            break;
          case 3:
            row[i] = 1;
            break;
          case 4:
            row[i] = random() % 3 == 0 ? kNan : normal(random);
            break;
          default:
            row[i] =
                random() % 5 == 0 ? -kInfinity : std::round(normal(random));
        }
      }
      for (const int64_t n : {1, 2, 20, 130}) ExpectSame(row, n);
    }
  }
}

TEST(TopCandidatesTest, LongRowsWhoseBestComeAnywhere) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> row(20'000);
  for (float& logit : row) logit = normal(random);
  for (const size_t place : {0, 127, 128, 129, 9999, 19'967, 19'999}) {
    row[place] = 10 + static_cast<float>(place % 7);
  }
  for (const int64_t n : {1, 5, 20, 128}) ExpectSame(row, n);
  std::fill(row.begin(), row.end(), kNan);
  ExpectSame(row, 3);
  row.back() = -kInfinity;
  ExpectSame(row, 3);
}

TEST(TopCandidatesTest, GreatestLogitPassesOverNan) {
  EXPECT_EQ(GreatestLogit({}), -kInfinity);
  for (int size = 1; size < 70; ++size) {
    for (int place = 0; place < size; ++place) {
      std::vector<float> row(size, kNan);
      EXPECT_EQ(GreatestLogit(row), -kInfinity);
      row[place] = -3;
      EXPECT_EQ(GreatestLogit(row), -3) << place << " of " << size;
      row[size - 1 - place] = kInfinity;
      EXPECT_EQ(GreatestLogit(row), kInfinity);
    }
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
