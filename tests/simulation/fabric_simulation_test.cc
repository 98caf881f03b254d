// Thousands of worlds with faults, on one thread, from seeds.

#include <cstdint>
#include <string>

#include "attention_worker/moe/expert_dispatcher.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/simulation/schedule.h"
#include "tests/simulation/simulate.h"

namespace switchyard::simulation {
namespace {

using Faults = attention_worker::ExpertDispatcherOptions::Faults;
using ::testing::HasSubstr;

constexpr uint64_t kSchedules = 12'000;

class FabricSimulationTest : public ::testing::Test {
 protected:
  // Above errors: worlds in which workers compute wrongly are meant to.
  FabricSimulationTest() { SetLogLevel(static_cast<LogLevel>(4)); }
  ~FabricSimulationTest() override { SetLogLevel(LogLevel::kInfo); }
};

TEST_F(FabricSimulationTest, NothingThatMayHappenBreaksAnInvariant) {
  Outcome sum;
  for (uint64_t seed = 1; seed <= kSchedules; ++seed) {
    const Schedule schedule = ScheduleOf(seed);
    const Outcome outcome = Simulate(schedule);
    if (!outcome.violation.empty()) {
      const Schedule smallest = Shrink(schedule, [](const Schedule& candidate) {
        return !Simulate(candidate).violation.empty();
      });
      ADD_FAILURE() << outcome.violation << "\n"
                    << Describe(schedule) << "smaller, "
                    << Simulate(smallest).violation << "\n"
                    << Describe(smallest)
                    << "again: switchyard-simulate --first_seed=" << seed
                    << " --schedules=1";
      return;
    }
    sum.calls += outcome.calls;
    sum.hedges += outcome.hedges;
    sum.resent_pairs += outcome.resent_pairs;
    sum.ejections += outcome.ejections;
    sum.distrusted += outcome.distrusted;
    sum.late_replies += outcome.late_replies;
    sum.failed_sequences += outcome.failed_sequences;
  }
  // Everything that is to be tested did happen, often.
  const auto often = static_cast<int64_t>(kSchedules / 20);
  EXPECT_GT(sum.calls, 100 * often);
  EXPECT_GT(sum.hedges, often);
  EXPECT_GT(sum.resent_pairs, often);
  EXPECT_GT(sum.ejections, often);
  EXPECT_GT(sum.distrusted, often);
  EXPECT_GT(sum.late_replies, often);
  EXPECT_GT(sum.failed_sequences, often);
}

// Found by longer runs.
TEST_F(FabricSimulationTest, SchedulesThatFailedOnceDoNotFailAgain) {
  for (const uint64_t seed : {24, 478, 13591, 32984, 408066}) {
    EXPECT_EQ(Simulate(ScheduleOf(seed)).violation, "") << seed;
  }
}

TEST_F(FabricSimulationTest, ASeedReplaysToTheLastBit) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const Schedule schedule = ScheduleOf(seed);
    EXPECT_EQ(Simulate(schedule).digest, Simulate(schedule).digest) << seed;
  }
  EXPECT_NE(Simulate(ScheduleOf(1)).digest, Simulate(ScheduleOf(2)).digest);
}

// A dispatcher with a fault is found out, and the schedule that shows it made
// small.
void ExpectFound(const Faults& faults, const std::string& violation,
                 size_t max_events) {
  const auto fails = [&](const Schedule& schedule) {
    const std::string found = Simulate(schedule, faults).violation;
    return found.find(violation) != std::string::npos;
  };
  for (uint64_t seed = 1; seed <= 5000; ++seed) {
    const Schedule schedule = ScheduleOf(seed);
    if (!fails(schedule)) continue;
    const Schedule smallest = Shrink(schedule, fails);
    EXPECT_TRUE(fails(smallest));
    EXPECT_TRUE(Simulate(smallest).violation.empty())
        << "without the fault all is well";
    EXPECT_LE(smallest.events.size(), max_events) << Describe(smallest);
    EXPECT_LE(smallest.num_steps, schedule.num_steps);
    return;
  }
  FAIL() << "not found: " << violation;
}

TEST_F(FabricSimulationTest, HoldingsThatAreNotReadAgainAreFoundOut) {
  ExpectFound({.ignore_changed_holdings = true}, "which it does not say it has",
              2);
}

TEST_F(FabricSimulationTest, HedgesWithoutABudgetAreFoundOut) {
  ExpectFound({.unlimited_hedges = true}, "beyond the budget", 4);
}

TEST_F(FabricSimulationTest, AnswersThatAreNotComparedAreFoundOut) {
  ExpectFound({.believe_first_answer = true}, "a wrong output", 4);
}

}  // namespace
}  // namespace switchyard::simulation
