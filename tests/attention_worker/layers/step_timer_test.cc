#include "attention_worker/layers/step_timer.h"

#include <chrono>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/layers/test_model.h"
#include "tests/testing/fixture_path.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FixturePath;

double Total(const StepTimer& timer) {
  double total = 0;
  for (int part = 0; part < kNumStepParts; ++part) {
    total += timer.seconds(static_cast<StepPart>(part));
  }
  return total;
}

// Lets at least a millisecond go by, and returns how long it was.
double Pass() {
  const auto start = std::chrono::steady_clock::now();
  double passed = 0;
  while (passed < 1e-3) {
    passed =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
  }
  return passed;
}

TEST(StepTimerTest, EveryMomentBelongsToTheInnermostPart) {
  StepTimer timer;
  timer.Start();
  double gate = 0, lm_head = 0, other = 0;
  {
    const TimedPart outer(&timer, StepPart::kGate);
    gate += Pass();
    {
      const TimedPart inner(&timer, StepPart::kLmHead);
      lm_head += Pass();
    }
    gate += Pass();
  }
  other += Pass();
  timer.Stop();
  EXPECT_GE(timer.seconds(StepPart::kGate), gate);
  EXPECT_GE(timer.seconds(StepPart::kLmHead), lm_head);
  EXPECT_GE(timer.seconds(StepPart::kOther), other);
  EXPECT_EQ(timer.seconds(StepPart::kSampling), 0);
  EXPECT_NEAR(Total(timer),
              timer.seconds(StepPart::kGate) +
                  timer.seconds(StepPart::kLmHead) +
                  timer.seconds(StepPart::kOther),
              1e-9);
}

TEST(StepTimerTest, StartForgets) {
  StepTimer timer;
  timer.Start();
  timer.Enter(StepPart::kGate);
  Pass();
  timer.Stop();
  EXPECT_GT(timer.seconds(StepPart::kGate), 0);
  timer.Start();
  timer.Stop();
  EXPECT_EQ(timer.seconds(StepPart::kGate), 0);
}

TEST(StepTimerTest, MoveTakesNoMoreThanThereIs) {
  StepTimer timer;
  timer.Start();
  timer.Enter(StepPart::kDispatch);
  Pass();
  timer.Enter(StepPart::kGate);
  timer.Move(StepPart::kDispatch, StepPart::kRoutedExperts,
             absl::Microseconds(300));
  EXPECT_DOUBLE_EQ(timer.seconds(StepPart::kRoutedExperts), 300e-6);
  EXPECT_GE(timer.seconds(StepPart::kDispatch), 700e-6);
  timer.Move(StepPart::kDispatch, StepPart::kRoutedExperts, absl::Hours(1));
  EXPECT_EQ(timer.seconds(StepPart::kDispatch), 0);
  EXPECT_GE(timer.seconds(StepPart::kRoutedExperts), 1e-3);
  timer.Move(StepPart::kRoutedExperts, StepPart::kDispatch, -absl::Hours(1));
  EXPECT_EQ(timer.seconds(StepPart::kDispatch), 0);
}

TEST(StepTimerTest, MoveCountsThePartUnderWay) {
  StepTimer timer;
  timer.Start();
  timer.Enter(StepPart::kDispatch);
  Pass();
  timer.Move(StepPart::kDispatch, StepPart::kRoutedExperts, absl::Hours(1));
  EXPECT_GE(timer.seconds(StepPart::kRoutedExperts), 1e-3);
}

TEST(StepTimerTest, NamesDiffer) {
  std::set<std::string> names;
  for (int part = 0; part < kNumStepParts; ++part) {
    names.insert(StepPartName(static_cast<StepPart>(part)));
  }
  EXPECT_EQ(names.size(), kNumStepParts);
  EXPECT_EQ(names.count(""), 0);
}

TEST(StepTimerTest, AModelsStepIsDividedAndUnchanged) {
  const std::vector<int32_t> tokens = SomeTokens(9, 512);
  TestModel plain(FixturePath("tiny_a_bf16"));
  const std::vector<float> expected = plain.Run(plain.NewState().get(), tokens);

  StepTimer timer;
  TestModel timed(FixturePath("tiny_a_bf16"), {.timer = &timer});
  const auto state = timed.NewState();
  timer.Start();
  const auto start = std::chrono::steady_clock::now();
  const std::vector<float> logits = timed.Run(state.get(), tokens);
  const double taken =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  timer.Stop();
  EXPECT_TRUE(SameBits(logits, expected));
  // The test's dispatcher has no holders that could tell.
  const std::set<StepPart> not_here = {StepPart::kRoutedExperts,
                                       StepPart::kSampling};
  for (int i = 0; i < kNumStepParts; ++i) {
    const auto part = static_cast<StepPart>(i);
    if (not_here.count(part) > 0) {
      EXPECT_EQ(timer.seconds(part), 0) << StepPartName(part);
    } else {
      EXPECT_GT(timer.seconds(part), 0) << StepPartName(part);
    }
  }
  EXPECT_GE(Total(timer), taken);
}

}  // namespace
}  // namespace switchyard::attention_worker
