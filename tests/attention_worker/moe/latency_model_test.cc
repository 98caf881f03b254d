#include "attention_worker/moe/latency_model.h"

#include <random>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

double Micros(absl::Duration duration) {
  return absl::ToDoubleMicroseconds(duration);
}

// So many answers to calls of so many pairs, around `micros`.
void Observe(LatencyModel* model, int count, int64_t pairs, double micros) {
  std::mt19937 random(1);
  std::normal_distribution<double> noise(1, 0.1);
  for (int i = 0; i < count; ++i) {
    model->Observe(pairs, absl::Microseconds(micros * noise(random)));
  }
}

TEST(LatencyModelTest, KnowsNothingAtFirst) {
  LatencyModel model;
  EXPECT_FALSE(model.known());
  model.Observe(5, absl::Microseconds(300));
  EXPECT_TRUE(model.known());
  EXPECT_NEAR(Micros(model.Typical(5)), 300, 25);
}

TEST(LatencyModelTest, KnowsTheSizesThatItHasSeen) {
  LatencyModel model;
  for (int i = 0; i < 3; ++i) model.Observe(10, absl::Microseconds(300));
  EXPECT_FALSE(model.Knows(10));
  model.Observe(10, absl::Microseconds(300));
  EXPECT_TRUE(model.Knows(10));
  EXPECT_TRUE(model.Knows(15));
  EXPECT_FALSE(model.Knows(1000));
}

TEST(LatencyModelTest, PausesOfTheMachineChangeLittle) {
  LatencyModel model;
  Observe(&model, 200, 10, 250);
  const double before = Micros(model.Typical(10));
  EXPECT_NEAR(before, 250, 40);
  model.Observe(10, absl::Milliseconds(80));
  EXPECT_LT(Micros(model.Typical(10)), before * 1.1);
}

TEST(LatencyModelTest, FollowsAChangeWithinTensOfCalls) {
  LatencyModel model;
  Observe(&model, 200, 10, 250);
  Observe(&model, 60, 10, 2500);
  EXPECT_NEAR(Micros(model.Typical(10)), 2500, 400);
  Observe(&model, 60, 10, 250);
  EXPECT_NEAR(Micros(model.Typical(10)), 250, 40);
}

TEST(LatencyModelTest, InterpolatesBetweenSizes) {
  LatencyModel model;
  Observe(&model, 100, 4, 200);    // class of 5.5 pairs
  Observe(&model, 100, 70, 1000);  // of 95.5
  EXPECT_NEAR(Micros(model.Typical(50)), 200 + 800 * (50 - 5.5) / 90, 100);
  // Outside: more for more, less for less, and something for a call itself.
  EXPECT_GT(model.Typical(400), 2 * model.Typical(96));
  EXPECT_LT(model.Typical(1), model.Typical(5));
  EXPECT_GT(model.Typical(1), model.Typical(5) / 3);
}

TEST(LatencyModelTest, TheTailIsThatOfOneInTwenty) {
  LatencyModel steady;
  Observe(&steady, 500, 10, 250);
  EXPECT_LT(steady.tail(), 1.6);
  LatencyModel uneven;
  std::mt19937 random(2);
  for (int i = 0; i < 3000; ++i) {
    uneven.Observe(10, absl::Microseconds(random() % 10 == 0 ? 2000 : 250));
  }
  EXPECT_NEAR(Micros(uneven.Typical(10)), 250, 60);
  EXPECT_GT(uneven.tail(), 4);
}

}  // namespace
}  // namespace switchyard::attention_worker
