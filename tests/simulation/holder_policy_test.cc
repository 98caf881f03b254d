// What the dispatcher makes of slow, hanging, dead, wrong and new holders: one
// thing at a time, in simulated time.

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/simulation/event_queue.h"
#include "tests/simulation/plain_registry.h"
#include "tests/simulation/simulated_worker.h"
#include "tests/testing/matchers.h"

namespace switchyard::simulation {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

using attention_worker::DispatchRequest;
using attention_worker::DispatchResult;
using attention_worker::ExpertClient;
using attention_worker::ExpertDispatcher;
using attention_worker::ExpertDispatcherOptions;

constexpr int kLayers = 2;
constexpr int kExperts = 12;
constexpr int64_t kHidden = 4;

model::ExpertSet Everything() {
  model::ExpertSet all(kLayers, kExperts);
  for (int l = 0; l < kLayers; ++l) {
    for (int e = 0; e < kExperts; ++e) all.Insert(l, e);
  }
  return all;
}

class HolderPolicyTest : public ::testing::Test {
 protected:
  HolderPolicyTest() { SetLogLevel(static_cast<LogLevel>(4)); }
  ~HolderPolicyTest() override {
    SetLogLevel(LogLevel::kInfo);
    EXPECT_EQ(violations_.first(), "");
  }

  SimulatedWorker* Add(model::ExpertSet holdings = Everything()) {
    workers_.push_back(std::make_shared<SimulatedWorker>(
        absl::StrCat("w", workers_.size()), std::move(holdings),
        /*seed=*/workers_.size(), &queue_, &violations_));
    return workers_.back().get();
  }

  std::shared_ptr<SimulatedWorker> Fallback() {
    auto fallback = std::make_shared<SimulatedWorker>("local", Everything(), 9,
                                                      &queue_, &violations_);
    fallback->set_computes_in_forward();
    options_.fallback = fallback;
    return fallback;
  }

  void Make() {
    for (const auto& worker : workers_) options_.clients.push_back(worker);
    options_.required = Everything();
    options_.pump = std::shared_ptr<EventQueue>(&queue_, [](EventQueue*) {});
    options_.clock = &queue_;
    options_.registry = &metrics_;
    dispatcher_ = NewExpertDispatcher(options_);
  }

  void SetClients(const std::vector<SimulatedWorker*>& in_set) {
    std::vector<std::shared_ptr<ExpertClient>> clients;
    for (const auto& worker : workers_) {
      const bool in =
          std::find(in_set.begin(), in_set.end(), worker.get()) != in_set.end();
      worker->set_in_set(in);
      if (in) clients.push_back(worker);
    }
    dispatcher_->SetClients(clients);
  }

  // A layer-step whose rows all want these experts; everything must be right.
  // Returns how long it took.
  absl::Duration Step(
      const std::vector<int32_t>& experts, int64_t rows = 1,
      const std::function<void()>& overlap = [] {}) {
    const absl::Time start = queue_.Now();
    EXPECT_THAT(TryStep(experts, rows, overlap), IsOk());
    return queue_.Now() - start;
  }

  absl::Status TryStep(
      const std::vector<int32_t>& experts, int64_t rows = 1,
      const std::function<void()>& overlap = [] {}) {
    std::vector<float> values;
    std::vector<int32_t> all;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < kHidden; ++i) {
        values.push_back(static_cast<float>(random_() % 1000));
      }
      all.insert(all.end(), experts.begin(), experts.end());
    }
    const std::vector<int32_t> sequence_of_row(rows, 0);
    const std::vector<absl::Time> deadlines = {queue_.Now() + absl::Seconds(5)};
    const int layer =
        layer_ >= 0 ? layer_ : static_cast<int>(random_() % kLayers);
    const DispatchResult result = dispatcher_->Dispatch(
        {.layer = layer,
         .num_rows = rows,
         .experts_per_row = static_cast<int>(experts.size()),
         .hidden_size = kHidden,
         .rows = values,
         .quantized = {},
         .experts = all,
         .sequence_of_row = sequence_of_row,
         .deadlines = deadlines},
        overlap);
    if (!result.sequence_status[0].ok()) return result.sequence_status[0];
    if (!expect_right_) return absl::OkStatus();
    for (size_t pair = 0; pair < all.size(); ++pair) {
      float right[kHidden];
      RightAnswer(layer, all[pair],
                  absl::MakeConstSpan(values).subspan(
                      pair / experts.size() * kHidden, kHidden),
                  absl::MakeSpan(right));
      EXPECT_EQ(std::memcmp(right, result.outputs[pair], sizeof(right)), 0);
    }
    return absl::OkStatus();
  }

  // So many, with pauses between them in which the world goes on.
  void Steps(int count, const std::vector<int32_t>& experts = {1, 2, 3},
             absl::Duration pause = absl::Microseconds(200)) {
    for (int i = 0; i < count; ++i) {
      Step(experts);
      queue_.RunUntil(queue_.Now() + pause);
    }
  }

  double Count(const std::string& name, const metrics::Labels& labels = {}) {
    return metrics_.AddCounter(name, "", labels)->value();
  }
  double Ejections(const SimulatedWorker* worker, const std::string& reason) {
    return Count("switchyard_expert_worker_ejections_total",
                 {{"worker", worker->name()}, {"reason", reason}});
  }
  bool IsIn(const SimulatedWorker* worker, const std::string& state) {
    return metrics_
               .AddGauge("switchyard_expert_worker_state", "",
                         {{"worker", worker->name()}, {"state", state}})
               ->value() == 1;
  }
  double Probes(const SimulatedWorker* worker, const std::string& result) {
    return Count("switchyard_expert_worker_probes_total",
                 {{"worker", worker->name()}, {"result", result}});
  }
  double Hedges(const std::string& result) {
    return Count("switchyard_moe_hedges_total", {{"result", result}});
  }

  std::mt19937_64 random_{3};
  int layer_ = -1;  // of all steps; -1: any
  bool expect_right_ = true;
  EventQueue queue_;
  Violations violations_;
  PlainRegistry metrics_;
  std::vector<std::shared_ptr<SimulatedWorker>> workers_;
  ExpertDispatcherOptions options_;
  std::unique_ptr<ExpertDispatcher> dispatcher_;
};

TEST_F(HolderPolicyTest, RowsOfALargeStepAreDividedByHowFastHoldersAre) {
  SimulatedWorker* const fast = Add();
  SimulatedWorker* const slow = Add();
  slow->SetPace({.slowness = 3});
  Make();
  std::vector<int32_t> experts(kExperts);
  for (int e = 0; e < kExperts; ++e) experts[e] = e;
  for (int i = 0; i < 50; ++i) Step(experts, 8);
  const int64_t fast_before = fast->num_pairs();
  const int64_t slow_before = slow->num_pairs();
  for (int i = 0; i < 50; ++i) Step(experts, 8);
  const auto to_fast = static_cast<double>(fast->num_pairs() - fast_before);
  const auto to_slow = static_cast<double>(slow->num_pairs() - slow_before);
  EXPECT_GT(to_slow, 0);
  EXPECT_GT(to_fast / to_slow, 1.5);
  EXPECT_LT(to_fast / to_slow, 8);
}

TEST_F(HolderPolicyTest, EqualHoldersShareTheLoad) {
  for (int i = 0; i < 3; ++i) Add();
  Make();
  std::vector<int32_t> experts(kExperts);
  for (int e = 0; e < kExperts; ++e) experts[e] = e;
  for (int i = 0; i < 100; ++i) Step(experts, 8);
  for (const auto& worker : workers_) {
    EXPECT_GT(worker->num_pairs(), 100 * 8 * kExperts / 5);
  }
}

TEST_F(HolderPolicyTest, ASingleRowGoesToFewHoldersUnlessExpertsTakeLong) {
  for (int i = 0; i < 4; ++i) {
    Add()->SetPace({.pair = absl::Microseconds(2), .jitter = 0});
  }
  Make();
  const auto calls = [&] {
    int64_t all = 0;
    for (const auto& worker : workers_) all += worker->num_calls();
    return all;
  };
  Steps(50, {1, 2, 3, 4, 5, 6});
  int64_t before = calls();
  Steps(20, {1, 2, 3, 4, 5, 6});
  EXPECT_LE(calls() - before, 20 + 2);
  for (const auto& worker : workers_) {
    worker->SetPace({.pair = absl::Microseconds(400), .jitter = 0});
  }
  Steps(100, {1, 2, 3, 4, 5, 6});
  before = calls();
  Steps(20, {1, 2, 3, 4, 5, 6});
  EXPECT_GE(calls() - before, 20 * 3);
}

// A kill is seen at once, and costs no wait: neither for the other holder nor
// for a timer of the first one.
TEST_F(HolderPolicyTest, WhatADeadHolderHadIsSentOnAtOnce) {
  SimulatedWorker* const a = Add();
  SimulatedWorker* const b = Add();
  Make();
  Steps(100);
  const int64_t calls_to_a = a->num_calls();
  const absl::Duration took = Step({1, 2, 3}, 1, [&] {
    (a->num_calls() > calls_to_a ? a : b)->Kill(absl::ZeroDuration());
  });
  EXPECT_LT(took, absl::Microseconds(500));
  EXPECT_EQ(Count("switchyard_moe_resent_pairs_total"), 3);
  EXPECT_EQ(Hedges("won") + Hedges("lost"), 0);
}

TEST_F(HolderPolicyTest, ACallThatTakesLongIsHedgedAndTheHolderLeftAlone) {
  for (int i = 0; i < 3; ++i) Add();
  Make();
  Steps(200);
  // Whoever gets this step hangs from now on.
  std::vector<int64_t> before;
  for (const auto& worker : workers_) before.push_back(worker->num_calls());
  SimulatedWorker* hung = nullptr;
  const absl::Duration took = Step({1, 2, 3}, 1, [&] {
    for (size_t i = 0; i < workers_.size(); ++i) {
      if (workers_[i]->num_calls() > before[i]) hung = workers_[i].get();
    }
    ASSERT_NE(hung, nullptr);
    hung->Hang();
  });
  EXPECT_LT(took, absl::Milliseconds(3));
  EXPECT_EQ(Hedges("won"), 1);
  const int64_t calls = hung->num_calls();
  for (int i = 0; i < 20; ++i) {
    EXPECT_LT(Step({1, 2, 3}), absl::Milliseconds(1));
  }
  EXPECT_EQ(hung->num_calls(), calls);
}

TEST_F(HolderPolicyTest, OneThatHangsIsEjectedAndComesBackWhenItGoesOn) {
  SimulatedWorker* const a = Add();
  SimulatedWorker* const b = Add();
  Make();
  Steps(200);
  a->Hang();
  b->SetPace({.slowness = 1});
  // Until it was given something, and then for longer than it may take.
  Steps(400, {1, 2, 3, 4, 5, 6, 7, 8}, absl::Milliseconds(1));
  EXPECT_EQ(Ejections(a, "hung"), 1);
  EXPECT_TRUE(IsIn(a, "ejected"));
  a->GoOn();
  Steps(400, {1, 2, 3, 4, 5, 6, 7, 8}, absl::Milliseconds(1));
  EXPECT_TRUE(IsIn(a, "live"));
  const int64_t calls = a->num_calls();
  Steps(100, {1, 2, 3, 4, 5, 6, 7, 8}, absl::Milliseconds(1));
  EXPECT_GT(a->num_calls(), calls);
  EXPECT_EQ(Ejections(b, "hung") + Ejections(b, "slow"), 0);
}

TEST_F(HolderPolicyTest, AHungHolderWithoutPeersIsWaitedFor) {
  SimulatedWorker* const a = Add();
  Make();
  Steps(50);
  a->Hang();
  const absl::Duration took = Step({1, 2, 3}, 1, [&] {
    queue_.After(absl::Milliseconds(700), [&] { a->GoOn(); });
  });
  EXPECT_GE(took, absl::Milliseconds(700));
  EXPECT_LT(took, absl::Milliseconds(702));
  EXPECT_LT(Step({1, 2, 3}), absl::Milliseconds(1));
}

TEST_F(HolderPolicyTest, AMuchSlowerHolderGetsOnlyWhatNobodyElseHas) {
  SimulatedWorker* const slow = Add();
  model::ExpertSet but_one = Everything();
  for (int l = 0; l < kLayers; ++l) but_one.Erase(l, 0);
  SimulatedWorker* const other = Add(but_one);
  Make();
  Steps(200, {0, 1, 2});
  slow->SetPace({.slowness = 20});
  Steps(50, {0, 1, 2}, absl::Microseconds(100));
  EXPECT_EQ(Ejections(slow, "slow"), 1);
  const int64_t pairs = slow->num_pairs();
  const int64_t others = other->num_pairs();
  Steps(20, {0, 1, 2}, absl::Microseconds(100));
  EXPECT_LE(slow->num_pairs() - pairs, 20 + 5);  // expert 0, and probes
  EXPECT_GE(other->num_pairs() - others, 40);
  slow->SetPace({});
  Steps(300, {0, 1, 2}, absl::Milliseconds(5));
  EXPECT_TRUE(IsIn(slow, "live"));
}

TEST_F(HolderPolicyTest, HedgesStayWithinTheirBudget) {
  SimulatedWorker* const a = Add();
  SimulatedWorker* const b = Add();
  options_.hedge_burst = 2;
  Make();
  Steps(100);
  // More calls than may be hedged are much slower than the others.
  std::mt19937 random(1);
  for (int i = 0; i < 600; ++i) {
    for (SimulatedWorker* const worker : {a, b}) {
      worker->SetPace({.slowness = random() % 10 == 0 ? 12.0 : 1.0});
    }
    Step({1, 2, 3});
  }
  const double hedges = Hedges("won") + Hedges("lost");
  const auto calls = static_cast<double>(a->num_calls() + b->num_calls());
  EXPECT_GT(hedges, 5);
  EXPECT_LE(hedges, 2 + 0.05 * calls);
}

TEST_F(HolderPolicyTest, AWrongHolderIsFoundOutvotedAndNeverAskedAgain) {
  for (int i = 0; i < 3; ++i) Add();
  options_.verify_fraction = 1;
  Make();
  Steps(20);
  SimulatedWorker* const wrong = workers_[1].get();
  wrong->ComputeWrongly();
  Steps(40);  // all of which are right
  EXPECT_EQ(Ejections(wrong, "wrong"), 1);
  EXPECT_GT(Count("switchyard_moe_result_mismatch_total"), 0);
  const int64_t calls = wrong->num_calls();
  Steps(40);
  SetClients({workers_[0].get(), workers_[2].get()});
  Steps(5);
  SetClients({workers_[0].get(), wrong, workers_[2].get()});
  Steps(40);
  EXPECT_EQ(wrong->num_calls(), calls);
  // Another process is another matter.
  wrong->Start(Everything());
  Steps(40);
  EXPECT_GT(wrong->num_calls(), calls);
  EXPECT_EQ(Ejections(wrong, "wrong"), 1);
}

TEST_F(HolderPolicyTest, TwoThatDifferAndNobodyToDecide) {
  Add();
  SimulatedWorker* const wrong = Add();
  options_.verify_fraction = 1;
  Make();
  Steps(5);
  wrong->ComputeWrongly();
  EXPECT_THAT(TryStep({1, 2, 3}),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("w0"), HasSubstr("w1"),
                             HasSubstr("different results of expert"))));
}

TEST_F(HolderPolicyTest, LocalWeightsDecideBetweenTwo) {
  Add();
  SimulatedWorker* const wrong = Add();
  const auto fallback = Fallback();
  options_.verify_fraction = 1;
  Make();
  Steps(5);
  EXPECT_EQ(fallback->num_calls(), 0);
  wrong->ComputeWrongly();
  Steps(10);
  EXPECT_EQ(Ejections(wrong, "wrong"), 1);
  EXPECT_GT(fallback->num_calls(), 0);
}

// Without verification a wrong answer is found where a hedge brought two: a
// call that is late, but whose answer comes while the step waits for others.
TEST_F(HolderPolicyTest, AHedgesTwoAnswersAreCompared) {
  model::ExpertSet but_one = Everything();
  for (int l = 0; l < kLayers; ++l) but_one.Erase(l, 0);
  for (int i = 0; i < 3; ++i) Add(but_one);
  model::ExpertSet only(kLayers, kExperts);
  for (int l = 0; l < kLayers; ++l) only.Insert(l, 0);
  SimulatedWorker* const last = Add(only);
  Make();
  Steps(300, {0, 1, 2, 3});
  std::vector<int64_t> before;
  for (const auto& worker : workers_) before.push_back(worker->num_calls());
  SimulatedWorker* wrong = nullptr;
  // Equal steps go to the same holder: the next one's answers come late and
  // wrong.
  layer_ = 0;
  last->SetPace({.slowness = 60});
  Step({0, 1, 2, 3});
  for (int i = 0; i < 3; ++i) {
    if (workers_[i]->num_calls() > before[i]) wrong = workers_[i].get();
  }
  ASSERT_NE(wrong, nullptr);
  wrong->SetPace({.slowness = 15});
  wrong->ComputeWrongly();
  Step({0, 1, 2, 3});
  EXPECT_EQ(Ejections(wrong, "wrong"), 1);
  EXPECT_EQ(Hedges("won"), 1);
}

TEST_F(HolderPolicyTest, LocalWeightsAreUsedWhereNobodyElseIs) {
  model::ExpertSet but_one = Everything();
  for (int l = 0; l < kLayers; ++l) but_one.Erase(l, 0);
  SimulatedWorker* const worker = Add(but_one);
  const auto fallback = Fallback();
  Make();
  Step({0, 1, 2});
  EXPECT_EQ(fallback->num_pairs(), 1);
  EXPECT_EQ(worker->num_pairs(), 2);
  EXPECT_EQ(dispatcher_->MissingExperts().size(), kLayers);
  worker->Kill(absl::ZeroDuration());
  Step({0, 1, 2});
  EXPECT_EQ(fallback->num_pairs(), 4);
  worker->Start(Everything());
  Step({0, 1, 2});
  EXPECT_EQ(fallback->num_pairs(), 4);
}

TEST_F(HolderPolicyTest, OneThatJoinsIsTriedOutFirst) {
  SimulatedWorker* const first = Add();
  SimulatedWorker* const second = Add();
  SimulatedWorker* const joins = Add();
  options_.health.join_probes = 3;
  Make();
  SetClients({first, second});
  Steps(40);
  joins->ComputeWrongly();
  SetClients({first, second, joins});
  Steps(20);  // all of which are right
  EXPECT_EQ(Ejections(joins, "wrong"), 1);
  EXPECT_LE(joins->num_pairs(), 3);
  EXPECT_EQ(Probes(joins, "wrong"), 1);
  const int64_t before = joins->num_pairs();
  joins->Start(Everything());
  Steps(1);
  EXPECT_TRUE(IsIn(joins, "joining"));
  EXPECT_LE(joins->num_pairs(), before + 1);
  Steps(10, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0});
  EXPECT_TRUE(IsIn(joins, "live"));
  EXPECT_EQ(Probes(joins, "right"), 3);
}

// The first is live unseen: that it came first does not make it right.
TEST_F(HolderPolicyTest, TwoThatJoinOutvoteAFirstThatComputesWrongly) {
  SimulatedWorker* const first = Add();
  SimulatedWorker* const second = Add();
  SimulatedWorker* const third = Add();
  options_.health.join_probes = 3;
  Make();
  first->ComputeWrongly();
  SetClients({first});
  expect_right_ = false;
  Steps(10);
  SetClients({first, second});
  Steps(40);
  EXPECT_TRUE(IsIn(first, "live"));
  EXPECT_TRUE(IsIn(second, "disputed"));
  EXPECT_GE(Probes(second, "disputed"), 1);
  EXPECT_LE(second->num_pairs(), 3) << "nobody asks again with nobody new";
  SetClients({first, second, third});
  for (int i = 0; i < 20 && !IsIn(first, "distrusted"); ++i) {
    Steps(1, {1, 2, 3}, absl::Milliseconds(100));
  }
  EXPECT_TRUE(IsIn(first, "distrusted"));
  EXPECT_EQ(Ejections(first, "wrong"), 1);
  EXPECT_EQ(Ejections(second, "wrong") + Ejections(third, "wrong"), 0);
  expect_right_ = true;
  const int64_t before = first->num_pairs();
  Steps(40);
  EXPECT_TRUE(IsIn(second, "live"));
  EXPECT_TRUE(IsIn(third, "live"));
  EXPECT_EQ(first->num_pairs(), before);
}

// One holder serves, then another joins that computes wrongly.
class WrongJoinTest : public HolderPolicyTest {
 protected:
  void JoinWrongly() {
    options_.health.join_probes = 3;
    Make();
    joins_->ComputeWrongly();
    SetClients({first_});
    Steps(10);
    SetClients({first_, joins_});
    Steps(40);  // all of which are right
  }

  SimulatedWorker* const first_ = Add();
  SimulatedWorker* const joins_ = Add();
  SimulatedWorker* const third_ = Add();  // not there yet
};

TEST_F(WrongJoinTest, ItGetsNothingUntilAThirdDecides) {
  JoinWrongly();
  EXPECT_TRUE(IsIn(joins_, "disputed"));
  EXPECT_EQ(Ejections(joins_, "wrong"), 0);
  SetClients({first_, joins_, third_});
  Steps(20, {1, 2, 3}, absl::Milliseconds(100));
  EXPECT_TRUE(IsIn(joins_, "distrusted"));
  EXPECT_TRUE(IsIn(first_, "live"));
  EXPECT_TRUE(IsIn(third_, "live"));
}

TEST_F(WrongJoinTest, TheDisputeEndsWithTheProcessThatBeganIt) {
  JoinWrongly();
  EXPECT_TRUE(IsIn(joins_, "disputed"));
  joins_->Start(Everything());
  Steps(20);
  EXPECT_TRUE(IsIn(joins_, "live"));
  EXPECT_TRUE(IsIn(first_, "live"));
}

TEST_F(WrongJoinTest, LocalWeightsDecide) {
  Fallback();
  JoinWrongly();
  EXPECT_TRUE(IsIn(joins_, "distrusted"));
  EXPECT_EQ(Probes(joins_, "wrong"), 1);
}

}  // namespace
}  // namespace switchyard::simulation
