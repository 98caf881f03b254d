#include "switchyard/bench/serving/samples.h"

#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::bench {
namespace {

using ::testing::ElementsAre;

TEST(SamplesTest, PercentilesAreNearestRanks) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  EXPECT_EQ(Percentile(values, 0), 1);
  EXPECT_EQ(Percentile(values, 0.5), 50);
  EXPECT_EQ(Percentile(values, 0.99), 99);
  EXPECT_EQ(Percentile(values, 1), 100);
  EXPECT_EQ(Percentile({7}, 0.99), 7);
  EXPECT_EQ(Percentile({}, 0.5), 0);
}

TEST(SamplesTest, MedianOfAnEvenNumberIsTheMeanOfTheMiddle) {
  EXPECT_EQ(Median({4, 1, 3}), 3);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(Median({}), 0);
}

TEST(SamplesTest, GapsAreThoseThatEndInside) {
  const auto at = [](int seconds) {
    return absl::UnixEpoch() + absl::Seconds(seconds);
  };
  const std::vector<absl::Time> times = {at(0), at(1), at(3), at(7)};
  std::vector<double> gaps;
  AddGaps(times, &gaps);
  EXPECT_THAT(gaps, ElementsAre(1, 2, 4));
  gaps.clear();
  AddGaps(times, &gaps, at(1), at(3));
  EXPECT_THAT(gaps, ElementsAre(2));
}

}  // namespace
}  // namespace switchyard::bench
