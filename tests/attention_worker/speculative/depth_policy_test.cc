#include "attention_worker/speculative/depth_policy.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr int kDepth = 3;

// A machine on which a step costs what a formula says, and texts whose drafts
// are right with some chance each.
struct Machine {
  std::function<double(int64_t sequences, int64_t rows)> step_seconds;
  double draft_seconds = 0;     // a row
  std::vector<double> chances;  // of each sequence
  double noise = 0;             // share of a step
  std::mt19937 random{1};

  struct Outcome {
    double tokens_per_second = 0;
    double mean_depth = 0;
  };
  Outcome Run(DepthPolicy* policy, int steps) {
    const int64_t n = static_cast<int64_t>(chances.size());
    std::vector<Acceptance> acceptance(chances.size(), Acceptance(kDepth));
    std::vector<int> depths(chances.size(), 0);
    std::uniform_real_distribution<double> uniform;
    double seconds = 0, tokens = 0, drafted = 0;
    for (int step = 0; step < steps; ++step) {
      int64_t rows = 0;
      for (size_t i = 0; i < chances.size(); ++i) {
        int accepted = 0;
        while (accepted < depths[i] && uniform(random) < chances[i]) ++accepted;
        if (depths[i] > 0) acceptance[i].Observe(depths[i], accepted, 0.125);
        tokens += 1 + accepted;
        rows += depths[i];
      }
      const double noisy =
          step_seconds(n, rows) * (1 + noise * uniform(random));
      seconds += noisy;
      policy->ObserveStep(n, rows, absl::Seconds(noisy));
      std::vector<const Acceptance*> pointers;
      for (const Acceptance& a : acceptance) pointers.push_back(&a);
      depths = policy->Choose(pointers, n);
      int64_t next = 0;
      for (const int depth : depths) next += depth;
      if (next > 0) {
        const double spent = draft_seconds * static_cast<double>(next);
        seconds += spent;
        policy->ObserveDrafting(n, next, absl::Seconds(spent));
      }
      drafted += static_cast<double>(next);
    }
    return {tokens / seconds,
            drafted / static_cast<double>(n) / static_cast<double>(steps)};
  }
  double Plain() const {
    const int64_t n = static_cast<int64_t>(chances.size());
    return static_cast<double>(n) / (step_seconds(n, 0) * (1 + noise / 2));
  }
};

TEST(DepthPolicyTest, DraftsWhereRowsAreCheap) {
  Machine machine{.step_seconds =
                      [](int64_t n, int64_t rows) {
                        return 0.1 + 0.001 * static_cast<double>(n + rows);
                      },
                  .draft_seconds = 0.002,
                  .chances = {0.9}};
  DepthPolicy policy({.max_depth = kDepth});
  const auto outcome = machine.Run(&policy, 2000);
  EXPECT_GT(outcome.mean_depth, 2.7);
  EXPECT_GT(outcome.tokens_per_second, 2.8 * machine.Plain());
}

TEST(DepthPolicyTest, TurnsItselfOffWhereTheyAreNot) {
  for (const int sequences : {1, 4, 16}) {
    Machine machine{.step_seconds =
                        [](int64_t n, int64_t rows) {
                          return 0.001 + 0.01 * static_cast<double>(n + rows);
                        },
                    .draft_seconds = 0.002,
                    .chances = std::vector<double>(sequences, 0.85)};
    DepthPolicy policy({.max_depth = kDepth});
    const auto outcome = machine.Run(&policy, 2000);
    EXPECT_LT(outcome.mean_depth, 0.1) << sequences;
    EXPECT_GT(outcome.tokens_per_second, 0.97 * machine.Plain()) << sequences;
  }
}

TEST(DepthPolicyTest, NeverMuchSlowerThanPlainOnANoisyMachine) {
  // Drafting a row costs a twentieth of a step, or with a long context, which
  // the head reads too, half of one.
  for (const double draft_seconds : {0.0005, 0.005}) {
    for (const double row : {0.05, 0.2, 0.4, 0.6, 0.8, 1.0}) {
      for (const double chance : {0.1, 0.19, 0.3, 0.5, 0.7, 0.9}) {
        for (const int sequences : {1, 4, 16}) {
          Machine machine{
              .step_seconds =
                  [&](int64_t n, int64_t rows) {
                    return 0.01 * (1 + row * static_cast<double>(n - 1 + rows));
                  },
              .draft_seconds = draft_seconds,
              .chances = std::vector<double>(sequences, chance),
              .noise = 0.3};
          DepthPolicy policy({.max_depth = kDepth});
          const auto outcome = machine.Run(&policy, 1500);
          EXPECT_GT(outcome.tokens_per_second, 0.95 * machine.Plain())
              << "row " << row << " chance " << chance << " of " << sequences
              << " drafting " << draft_seconds;
        }
      }
    }
  }
}

TEST(DepthPolicyTest, EachAsDeepAsItsTextAllows) {
  Machine machine{.step_seconds =
                      [](int64_t n, int64_t rows) {
                        return 0.01 *
                               (1 + 0.3 * static_cast<double>(n - 1 + rows));
                      },
                  .draft_seconds = 0.0005,
                  .chances = {0.98, 0.2}};
  DepthPolicy policy({.max_depth = kDepth});
  machine.Run(&policy, 500);
  Acceptance good(kDepth), bad(kDepth);
  for (int i = 0; i < 50; ++i) {
    good.Observe(3, 3, 0.125);
    bad.Observe(1, i % 5 == 0, 0.125);
  }
  std::vector<std::vector<int>> chosen;
  for (int i = 0; i < 5; ++i)
    chosen.push_back(policy.Choose({{&good, &bad}}, 2));
  std::sort(chosen.begin(), chosen.end());
  EXPECT_THAT(chosen[2], ElementsAre(3, 0));
}

TEST(DepthPolicyTest, ComesBackWhenTheMachineChanges) {
  double row = 1.0;
  Machine machine{.step_seconds =
                      [&row](int64_t n, int64_t rows) {
                        return 0.01 *
                               (1 + row * static_cast<double>(n - 1 + rows));
                      },
                  .draft_seconds = 0.0002,
                  .chances = {0.9}};
  DepthPolicy policy({.max_depth = kDepth});
  EXPECT_LT(machine.Run(&policy, 500).mean_depth, 0.2);
  row = 0.05;
  machine.Run(&policy, 4000);
  EXPECT_GT(machine.Run(&policy, 500).mean_depth, 2);
}

TEST(DepthPolicyTest, WhatCannotBeMeasuredIsNotTriedInEveryStep) {
  DepthPolicy policy({.max_depth = kDepth});
  const Acceptance acceptance(kDepth);
  const std::vector<const Acceptance*> one = {&acceptance};
  policy.ObserveStep(4, 0, absl::Seconds(1));
  int tried = 0;
  for (int i = 0; i < 160; ++i) tried += policy.Choose(one, 4)[0] > 0;
  EXPECT_EQ(tried, 10);
}

TEST(DepthPolicyTest, FixedMeansFixed) {
  DepthPolicy policy({.max_depth = kDepth, .adaptive = false});
  const Acceptance acceptance(kDepth);
  const std::vector<const Acceptance*> two = {&acceptance, &acceptance};
  for (int i = 0; i < 100; ++i) {
    policy.ObserveStep(2, 6, absl::Seconds(1));
    EXPECT_THAT(policy.Choose(two, 2), Each(kDepth));
    EXPECT_TRUE(policy.Admit());
  }
}

TEST(DepthPolicyTest, FewPromptsAreReadWhileDraftsDoNotPay) {
  Machine machine{.step_seconds =
                      [](int64_t n, int64_t rows) {
                        return 0.01 * static_cast<double>(n + rows);
                      },
                  .draft_seconds = 0.01,
                  .chances = {0.5}};
  DepthPolicy policy({.max_depth = kDepth});
  EXPECT_TRUE(policy.Admit());
  machine.Run(&policy, 500);
  int admitted = 0;
  for (int i = 0; i < 160; ++i) admitted += policy.Admit();
  EXPECT_EQ(admitted, 10);
}

}  // namespace
}  // namespace switchyard::attention_worker
