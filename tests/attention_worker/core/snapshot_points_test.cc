#include "attention_worker/core/snapshot_points.h"

#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(SnapshotPointsTest, AlwaysTheEnd) {
  EXPECT_THAT(SnapshotPoints(0, 0, 1, {}), ElementsAre(1));
  EXPECT_THAT(SnapshotPoints(99, 99, 100, {}), ElementsAre(100));
  EXPECT_THAT(SnapshotPoints(100, 100, 100, {}), IsEmpty());
}

TEST(SnapshotPointsTest, WherePathsPart) {
  EXPECT_THAT(SnapshotPoints(0, 60, 100, {}), ElementsAre(60, 100));
  // Too near to what is there already, or to the end.
  EXPECT_THAT(SnapshotPoints(50, 60, 100, {}), ElementsAre(100));
  EXPECT_THAT(SnapshotPoints(0, 90, 100, {}), ElementsAre(100));
}

TEST(SnapshotPointsTest, TheFirstAndTheLastBoundaries) {
  const std::vector<int64_t> boundaries = {100, 200, 300, 400, 500, 600};
  EXPECT_THAT(SnapshotPoints(0, 0, 700, boundaries),
              ElementsAre(100, 400, 500, 600, 700));
  EXPECT_THAT(SnapshotPoints(450, 450, 700, boundaries),
              ElementsAre(500, 600, 700));
  const std::vector<int64_t> beyond = {-5, 0, 9000};
  EXPECT_THAT(SnapshotPoints(0, 0, 700, beyond), ElementsAre(700));
}

TEST(SnapshotPointsTest, TheHeaderOfTheAnswerIsLeftOut) {
  const std::vector<int64_t> boundaries = {20, 60, 95};
  EXPECT_THAT(SnapshotPoints(0, 0, 100, boundaries), ElementsAre(20, 60, 95));
  EXPECT_THAT(SnapshotPoints(90, 90, 100, boundaries), ElementsAre(95));
  EXPECT_THAT(SnapshotPoints(95, 95, 100, boundaries), ElementsAre(100));
}

TEST(SnapshotPointsTest, SomeWayBackWithoutBoundaries) {
  EXPECT_THAT(SnapshotPoints(0, 0, 3000, {}),
              ElementsAre(952, 2488, 2872, 3000));
  EXPECT_THAT(SnapshotPoints(2900, 2900, 3000, {}), ElementsAre(3000));
}

}  // namespace
}  // namespace switchyard::attention_worker
