#include "expert_worker/placement/movement_budget.h"

#include "gtest/gtest.h"

namespace switchyard::expert_worker {
namespace {

const absl::Time kStart = absl::UnixEpoch();

TEST(MovementBudgetTest, GivesSoMuchAMinute) {
  MovementBudget budget(600, kStart);
  EXPECT_FALSE(budget.Take(1, kStart));  // empty at first
  absl::Time now = kStart;
  int64_t taken = 0;
  for (int tick = 0; tick < 600; ++tick) {
    now += absl::Milliseconds(500);
    while (budget.Take(7, now)) taken += 7;
  }
  // Five minutes.
  EXPECT_LE(taken, 3000);
  EXPECT_GT(taken, 3000 - 7);
}

TEST(MovementBudgetTest, SavesUpNoMoreThanAMinute) {
  MovementBudget budget(600, kStart);
  const absl::Time later = kStart + absl::Hours(5);
  EXPECT_TRUE(budget.Take(400, later));
  EXPECT_TRUE(budget.Take(200, later));
  EXPECT_FALSE(budget.Take(1, later));
}

TEST(MovementBudgetTest, OneThatIsLargerTakesItsTime) {
  MovementBudget budget(600, kStart);
  absl::Time now = kStart;
  // Asked for again and again, as the keeper does.
  while (!budget.Take(1500, now)) now += absl::Seconds(1);
  EXPECT_EQ(now, kStart + absl::Seconds(150));
}

TEST(MovementBudgetTest, NothingIsNothing) {
  MovementBudget budget(0, kStart);
  EXPECT_FALSE(budget.Take(1, kStart + absl::Hours(1000)));
}

}  // namespace
}  // namespace switchyard::expert_worker
