#include "attention_worker/scheduler/decode_first.h"

#include <cstdint>
#include <random>
#include <vector>

#include "attention_worker/scheduler/policy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

SequenceView Waiting(int64_t known) {
  return {SequencePhase::kWaiting, known, 0};
}
SequenceView Prefill(int64_t known, int64_t computed) {
  return {SequencePhase::kPrefill, known, computed};
}
SequenceView Decoding(int64_t known) {
  return {SequencePhase::kDecoding, known, known - 1};
}

// Memory is no limit here unless a test makes it one.
StepBudget Budget(int64_t prefill_tokens, int64_t max_running = 100) {
  return {.prefill_tokens = prefill_tokens,
          .max_running = max_running,
          .state_bytes = 1'000'000'000,
          .costs = {.fixed_bytes = 100, .page_bytes = 10, .page_tokens = 1}};
}

StepPlan Plan(const std::vector<SequenceView>& sequences,
              const StepBudget& budget) {
  return DecodeFirst().Plan(sequences, budget);
}

TEST(DecodeFirstTest, NothingToDo) {
  EXPECT_EQ(Plan({}, Budget(8)), StepPlan{});
}

TEST(DecodeFirstTest, DecodesAllAndFillsUpWithPrompts) {
  const StepPlan plan = Plan(
      {Decoding(5), Prefill(100, 20), Decoding(9), Waiting(50)}, Budget(30));
  EXPECT_THAT(plan.preempt, IsEmpty());
  EXPECT_THAT(plan.admit, ElementsAre(3));
  EXPECT_THAT(plan.entries, ElementsAre(StepEntry{0, 1}, StepEntry{1, 15},
                                        StepEntry{2, 1}, StepEntry{3, 15}));
}

TEST(DecodeFirstTest, WhatAShortPromptLeavesGoesToTheOthers) {
  const StepPlan plan =
      Plan({Waiting(1000), Waiting(4), Waiting(1000)}, Budget(101));
  // 33 each; 29 of the second are left over, and 2 that did not divide.
  EXPECT_THAT(plan.entries,
              ElementsAre(StepEntry{0, 49}, StepEntry{1, 4}, StepEntry{2, 48}));
}

TEST(DecodeFirstTest, FewerTokensThanPromptsGoToTheOldest) {
  const StepPlan plan =
      Plan({Prefill(9, 1), Prefill(9, 1), Prefill(9, 1)}, Budget(2));
  EXPECT_THAT(plan.entries, ElementsAre(StepEntry{0, 1}, StepEntry{1, 1}));
}

TEST(DecodeFirstTest, AdmitsInOrderUpToMaxRunning) {
  const StepPlan plan =
      Plan({Decoding(5), Waiting(3), Waiting(3), Waiting(3)}, Budget(100, 3));
  EXPECT_THAT(plan.admit, ElementsAre(1, 2));
}

TEST(DecodeFirstTest, APromptThatDoesNotFitIsNotOvertaken) {
  StepBudget budget = Budget(100);
  // One decoding: 100 + 50. The big one: 100 + 10,000.
  budget.state_bytes = 5000;
  const StepPlan plan = Plan({Decoding(5), Waiting(1000), Waiting(1)}, budget);
  EXPECT_THAT(plan.admit, IsEmpty());
  EXPECT_THAT(plan.entries, ElementsAre(StepEntry{0, 1}));
}

TEST(DecodeFirstTest, AloneItFitsToTheLastByte) {
  StepBudget budget = Budget(100);
  budget.state_bytes = 100 + 10 * 7;
  EXPECT_THAT(Plan({Waiting(7)}, budget).admit, ElementsAre(0));
  budget.state_bytes -= 1;
  EXPECT_THAT(Plan({Waiting(7)}, budget).admit, IsEmpty());
}

TEST(DecodeFirstTest, ANewcomerLeavesRoomForTheOthersToGrow) {
  StepBudget budget = Budget(100);
  // Exactly both now, but not for long.
  budget.state_bytes = (100 + 50) + (100 + 30);
  EXPECT_THAT(Plan({Decoding(5), Waiting(3)}, budget).admit, IsEmpty());
  // 32 tokens of 10 bytes for each of the two.
  budget.state_bytes += 2 * 32 * 10;
  EXPECT_THAT(Plan({Decoding(5), Waiting(3)}, budget).admit, ElementsAre(1));
}

TEST(DecodeFirstTest, PreemptsTheYoungestWhenStatesOutgrowTheBudget) {
  StepBudget budget = Budget(100);
  budget.state_bytes = 3 * 100 + (5 + 6 + 7) * 10 - 1;
  const StepPlan plan =
      Plan({Decoding(5), Decoding(6), Decoding(7), Waiting(1)}, budget);
  EXPECT_THAT(plan.preempt, ElementsAre(2));
  EXPECT_THAT(plan.admit, IsEmpty());  // not in the same step
  EXPECT_THAT(plan.entries, ElementsAre(StepEntry{0, 1}, StepEntry{1, 1}));
}

TEST(DecodeFirstTest, APreemptedSequenceIsReadFromItsBeginning) {
  const StepPlan plan = Plan({Decoding(5), Waiting(12)}, Budget(100));
  EXPECT_THAT(plan.entries, ElementsAre(StepEntry{0, 1}, StepEntry{1, 12}));
}

SequenceView Of(SequenceView view, uint64_t client, int32_t priority = 0) {
  view.client = client;
  view.priority = priority;
  return view;
}

TEST(DecodeFirstTest, ABetterPriorityIsLetInFirst) {
  const StepPlan plan = Plan({Of(Waiting(10), 1, 0), Of(Waiting(10), 1, 5),
                              Of(Waiting(10), 1, -1), Of(Waiting(10), 1, 0)},
                             Budget(100, 3));
  EXPECT_THAT(plan.admit, ElementsAre(2, 0, 3));
}

TEST(DecodeFirstTest, AClientWithManyRequestsDoesNotKeepOthersOut) {
  const StepPlan plan =
      Plan({Of(Decoding(5), 1), Of(Decoding(5), 1), Of(Waiting(3), 1),
            Of(Waiting(3), 1), Of(Waiting(3), 2), Of(Waiting(3), 3),
            Of(Waiting(3), 2)},
           Budget(100, 6));
  // 2 and 3 have nothing yet; then they have one each, and 1 has two.
  EXPECT_THAT(plan.admit, ElementsAre(4, 5, 6, 2));
}

TEST(DecodeFirstTest, NobodyElsesPromptsTakeAClientsShare) {
  const StepPlan plan = Plan({Of(Prefill(1000, 0), 1), Of(Prefill(1000, 0), 1),
                              Of(Prefill(1000, 0), 1), Of(Prefill(1000, 0), 2)},
                             Budget(60));
  EXPECT_THAT(plan.entries, ElementsAre(StepEntry{0, 10}, StepEntry{1, 10},
                                        StepEntry{2, 10}, StepEntry{3, 30}));
}

TEST(DecodeFirstTest, ABetterPrioritysPromptIsReadFirst) {
  const StepPlan plan =
      Plan({Of(Prefill(1000, 0), 1, 1), Of(Prefill(40, 0), 2, 0),
            Of(Prefill(1000, 0), 3, 1)},
           Budget(100));
  EXPECT_THAT(plan.entries, ElementsAre(StepEntry{0, 30}, StepEntry{1, 40},
                                        StepEntry{2, 30}));
}

TEST(DecodeFirstTest, TheWorstPriorityGivesItsStateBackFirst) {
  StepBudget budget = Budget(100);
  budget.state_bytes = 3 * 100 + (5 + 6 + 7) * 10 - 1;
  EXPECT_THAT(Plan({Of(Decoding(5), 1, 0), Of(Decoding(6), 1, 1),
                    Of(Decoding(7), 1, 0)},
                   budget)
                  .preempt,
              ElementsAre(1));
}

TEST(StepPlanTest, DebugStringSaysEverything) {
  const StepPlan plan{
      .preempt = {4}, .admit = {1, 2}, .entries = {{0, 1}, {1, 30}}};
  EXPECT_EQ(plan.DebugString(), "preempt {4} admit {1,2} compute {0:1,1:30}");
}

// The promises of policy.h, over many random cases.
TEST(DecodeFirstTest, KeepsItsPromises) {
  std::mt19937 random(17);
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
  };
  for (int round = 0; round < 5000; ++round) {
    StepBudget budget = Budget(1 + below(40), 1 + below(6));
    int64_t largest = 0;
    std::vector<SequenceView> sequences;
    int64_t holding = 0;
    for (int64_t i = below(9); i > 0; --i) {
      const int64_t known = 1 + below(60);
      const int64_t kind = below(3);
      if (kind == 0 || holding == budget.max_running) {
        sequences.push_back(Waiting(known));
      } else {
        sequences.push_back(kind == 1 ? Prefill(known, below(known))
                                      : Decoding(known));
        ++holding;
      }
      largest = std::max(largest, budget.BytesFor(sequences.back()));
    }
    budget.state_bytes = largest + below(2000);
    const StepPlan plan = Plan(sequences, budget);

    std::vector<bool> holds(sequences.size());
    for (size_t i = 0; i < sequences.size(); ++i) {
      holds[i] = sequences[i].holds_state();
    }
    const bool none_held = holding == 0;
    for (const size_t i : plan.preempt) {
      ASSERT_TRUE(holds[i]);
      holds[i] = false;
    }
    for (const size_t i : plan.admit) {
      ASSERT_EQ(sequences[i].phase, SequencePhase::kWaiting);
      holds[i] = true;
    }
    int64_t bytes = 0;
    int64_t running = 0;
    size_t oldest_holder = sequences.size();
    for (size_t i = sequences.size(); i-- > 0;) {
      if (holds[i]) oldest_holder = i;
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (!holds[i]) continue;
      bytes += budget.BytesFor(sequences[i]);
      ++running;
    }
    ASSERT_LE(bytes, budget.state_bytes) << plan.DebugString();
    ASSERT_LE(running, budget.max_running);
    int64_t prompt_tokens = 0;
    bool oldest_computes = false;
    size_t next = 0;
    for (const StepEntry& entry : plan.entries) {
      ASSERT_GE(entry.sequence, next);
      next = entry.sequence + 1;
      const SequenceView& sequence = sequences[entry.sequence];
      ASSERT_TRUE(holds[entry.sequence]);
      ASSERT_GE(entry.num_tokens, 1);
      ASSERT_LE(entry.num_tokens, sequence.remaining_tokens());
      if (sequence.phase != SequencePhase::kDecoding) {
        prompt_tokens += entry.num_tokens;
      }
      if (entry.sequence == oldest_holder) oldest_computes = true;
    }
    ASSERT_LE(prompt_tokens, budget.prefill_tokens);
    if (oldest_holder < sequences.size()) {
      ASSERT_TRUE(oldest_computes) << plan.DebugString();
    }
    if (none_held && !sequences.empty()) {
      ASSERT_EQ(oldest_holder, 0);
    }
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
