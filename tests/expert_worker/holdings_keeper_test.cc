#include "expert_worker/placement/holdings_keeper.h"

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "tests/testing/fake_clock.h"

namespace switchyard::expert_worker {
namespace {

using Pair = experts::ExpertEngine::Pair;
using fabric::Member;
using fabric::MemberState;
using fabric::View;

constexpr int kExperts = 24;

model::ExpertSet None() { return model::ExpertSet(1, kExperts); }
model::ExpertSet All() {
  model::ExpertSet all = None();
  for (int e = 0; e < kExperts; ++e) all.Insert(0, e);
  return all;
}

// Remembers what it was told to hold.
class Shelf final : public experts::ExpertEngine {
 public:
  model::ExpertSet holdings() const override {
    MutexLock lock(&mutex_);
    return held_;
  }
  int64_t resident_bytes() const override { return holdings().size() * 10; }
  int64_t expert_bytes() const override { return 10; }
  kernels::DType weight_dtype() const override { return kernels::DType::kF32; }
  std::vector<absl::Status> Load(absl::Span<const Pair> pairs,
                                 ComputePool*) override {
    std::vector<absl::Status> statuses(pairs.size());
    MutexLock lock(&mutex_);
    for (size_t i = 0; i < pairs.size(); ++i) {
      if (damaged_.contains(pairs[i].expert)) {
        statuses[i] = absl::DataLossError("damaged");
      } else {
        held_.Insert(pairs[i].layer, pairs[i].expert);
      }
    }
    return statuses;
  }
  void Drop(const Pair& pair) override {
    MutexLock lock(&mutex_);
    held_.Erase(pair.layer, pair.expert);
  }
  absl::Status Compute(const experts::ExpertBatch&,
                       absl::Span<float>) override {
    return absl::UnimplementedError("");
  }
  void Damage(int expert) {
    MutexLock lock(&mutex_);
    damaged_.insert(expert);
  }

 private:
  mutable Mutex mutex_;
  model::ExpertSet held_ ABSL_GUARDED_BY(mutex_) = None();
  std::set<int> damaged_ ABSL_GUARDED_BY(mutex_);
};

class HoldingsKeeperTest : public ::testing::Test {
 protected:
  HoldingsKeeperTest() : registry_(metrics::Registry::Create()) {
    SetOthers({});
  }

  static Member Worker(const std::string& id, model::ExpertSet holdings) {
    Member member;
    member.instance_id = id;
    member.role = fabric::MemberRole::kExpertWorker;
    member.address = id + ":1";
    member.model_fingerprint = "f00d";
    member.weight_format = "f32";
    member.state = MemberState::kServing;
    member.expert_bytes = 10;
    member.budget_experts = 1000;
    member.replicas = 2;
    member.holdings = std::move(holdings);
    return member;
  }

  // Who is there beside this worker, and the experts' heat.
  void SetOthers(std::vector<Member> others, std::vector<uint32_t> heat = {}) {
    auto view = std::make_shared<View>();
    view->settled = true;
    view->heat = std::move(heat);
    view->members = std::move(others);
    view->members.push_back(Worker("z-me", None()));
    {
      MutexLock lock(&mutex_);
      view_ = std::move(view);
    }
    if (keeper_ != nullptr) keeper_->Wake();
  }

  void Start(int64_t room = 1000, int64_t hot_copy_bytes_per_minute = 0) {
    HoldingsKeeper::Options options;
    options.engine = &shelf_;
    options.pool = &pool_;
    options.plan.instance_id = "z-me";
    options.plan.experts = All();
    options.plan.rebalance_delay = absl::ZeroDuration();
    options.plan.join_delay = absl::ZeroDuration();
    options.room = room;
    options.view = [this] {
      MutexLock lock(&mutex_);
      return view_;
    };
    options.advertise = [this](const model::ExpertSet& holdings) {
      const model::ExpertSet held = shelf_.holdings();
      MutexLock lock(&mutex_);
      // Nothing is promised that is not there.
      for (int e = 0; e < kExperts; ++e) {
        EXPECT_TRUE(!holdings.Contains(0, e) || held.Contains(0, e)) << e;
      }
      advertised_ = holdings;
      ++updates_;
      changed_.SignalAll();
    };
    options.in_use = [this](int, int expert) {
      MutexLock lock(&mutex_);
      return in_use_.contains(expert);
    };
    options.on_complete = [this] {
      MutexLock lock(&mutex_);
      complete_ = true;
      changed_.SignalAll();
    };
    options.registry = registry_.get();
    options.max_batch_experts = 5;
    options.withdrawn_time = absl::Milliseconds(1);
    options.retry_time = absl::Hours(1);
    options.hot_copy_bytes_per_minute = hot_copy_bytes_per_minute;
    if (hot_copy_bytes_per_minute > 0) options.clock = &clock_;
    keeper_ = std::make_unique<HoldingsKeeper>(std::move(options));
  }

  bool WaitFor(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    MutexLock lock(&mutex_);
    while (!condition()) {
      if (absl::Now() >= deadline) return false;
      changed_.WaitUntil(&mutex_, absl::Now() + absl::Milliseconds(20));
    }
    return true;
  }
  bool Advertises(const model::ExpertSet& wanted) {
    return WaitFor([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return advertised_ == wanted;
    });
  }
  double Counter(const std::string& name) {
    return registry_->AddCounter(name, Help(name))->value();
  }
  static std::string Help(const std::string& name) {
    if (name.find("hot_copy") != std::string::npos) {
      return "Of them, those of further copies of hot experts.";
    }
    return name.find("loaded") != std::string::npos
               ? "Bytes of experts that were loaded for the placement."
               : "Bytes of experts that were let go for the placement.";
  }

  const std::unique_ptr<metrics::Registry> registry_;
  testing::FakeClock clock_;  // of those tests that move hot experts
  InlinePool pool_;
  Shelf shelf_;
  Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<const View> view_ ABSL_GUARDED_BY(mutex_);
  model::ExpertSet advertised_ ABSL_GUARDED_BY(mutex_) = None();
  int updates_ ABSL_GUARDED_BY(mutex_) = 0;
  bool complete_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<int> in_use_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<HoldingsKeeper> keeper_;  // last: stops first
};

TEST_F(HoldingsKeeperTest, LoadsInBatchesAndSaysSo) {
  Start();
  EXPECT_TRUE(Advertises(All()));
  EXPECT_TRUE(WaitFor(
      [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return complete_; }));
  {
    MutexLock lock(&mutex_);
    EXPECT_EQ(updates_, 5);  // of 5 each, at most
  }
  EXPECT_EQ(Counter("switchyard_expert_rebalance_loaded_bytes_total"), 240);
}

TEST_F(HoldingsKeeperTest, LetsGoWhenOthersHoldItAndNobodyNeedsIt) {
  Start();
  ASSERT_TRUE(Advertises(All()));
  {
    MutexLock lock(&mutex_);
    for (int e = 0; e < kExperts; ++e) in_use_.insert(e);
  }
  SetOthers({Worker("a", All()), Worker("b", All()), Worker("c", All())});
  ASSERT_TRUE(WaitFor([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return advertised_.size() < kExperts;
  }));
  // Withdrawn, but somebody's rows are here: still held.
  EXPECT_EQ(shelf_.holdings(), All());
  model::ExpertSet advertised;
  {
    MutexLock lock(&mutex_);
    in_use_.clear();
    advertised = advertised_;
  }
  EXPECT_GT(advertised.size(), 0);
  EXPECT_TRUE(WaitFor([&] { return shelf_.holdings() == advertised; }));
  EXPECT_TRUE(WaitFor([&] {
    return Counter("switchyard_expert_rebalance_dropped_bytes_total") ==
           10 * (kExperts - advertised.size());
  }));
}

TEST_F(HoldingsKeeperTest, TakesBackWhatItHasNotLetGoYet) {
  Start();
  ASSERT_TRUE(Advertises(All()));
  {
    MutexLock lock(&mutex_);
    for (int e = 0; e < kExperts; ++e) in_use_.insert(e);
  }
  SetOthers({Worker("a", All()), Worker("b", All()), Worker("c", All())});
  ASSERT_TRUE(WaitFor([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return advertised_.size() < kExperts;
  }));
  SetOthers({});
  EXPECT_TRUE(Advertises(All()));
  // Without reading anything again.
  EXPECT_EQ(Counter("switchyard_expert_rebalance_loaded_bytes_total"), 240);
}

TEST_F(HoldingsKeeperTest, KeepsToItsRoom) {
  Start(/*room=*/7);
  EXPECT_TRUE(WaitFor([&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return advertised_.size() == 7;
  }));
  EXPECT_TRUE(keeper_->Drain(absl::Now() + absl::Seconds(60)));
  EXPECT_EQ(Counter("switchyard_expert_rebalance_loaded_bytes_total"), 70);
}

TEST_F(HoldingsKeeperTest, ADamagedExpertIsNotAdvertised) {
  shelf_.Damage(3);
  Start();
  model::ExpertSet others = All();
  others.Erase(0, 3);
  EXPECT_TRUE(Advertises(others));
  MutexLock lock(&mutex_);
  EXPECT_FALSE(complete_);
}

TEST_F(HoldingsKeeperTest, CopiesHotExpertsWithinABudget) {
  // Two of those that the others alone should hold become hot: a third copy is
  // to come here.
  std::vector<uint32_t> heat(kExperts, 2000);
  SetOthers({Worker("a", None()), Worker("b", None())}, heat);
  Start(/*room=*/1000, /*hot_copy_bytes_per_minute=*/20);
  ASSERT_TRUE(WaitFor(
      [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return complete_; }));
  const double share =
      Counter("switchyard_expert_rebalance_loaded_bytes_total");
  for (int e = 0, hot = 0; e < kExperts && hot < 2; ++e) {
    if (shelf_.holdings().Contains(0, e)) continue;
    heat[static_cast<size_t>(e)] = 60'000;
    ++hot;
  }
  SetOthers({Worker("a", None()), Worker("b", None())}, heat);
  const auto copied = [&] {
    return Counter("switchyard_expert_hot_copy_bytes_total");
  };
  // Each of the two copies that a minute allows comes after half of it.
  for (int copies = 1; copies <= 2; ++copies) {
    clock_.Advance(absl::Seconds(29));
    EXPECT_EQ(copied(), 10 * (copies - 1));
    clock_.Advance(absl::Seconds(1));
    ASSERT_TRUE(WaitFor([&] { return copied() == 10 * copies; })) << copies;
  }
  EXPECT_EQ(Counter("switchyard_expert_rebalance_loaded_bytes_total"),
            share + 20);
}

TEST_F(HoldingsKeeperTest, DrainsToOthersAndWaitsForThem) {
  Start();
  ASSERT_TRUE(Advertises(All()));
  model::ExpertSet most = All();
  most.Erase(0, 11);
  SetOthers({Worker("a", most)});
  EXPECT_FALSE(keeper_->Drain(absl::Now() + absl::Milliseconds(50)));
  model::ExpertSet last = None();
  last.Insert(0, 11);
  EXPECT_TRUE(Advertises(last));
  SetOthers({Worker("a", All())});
  EXPECT_TRUE(keeper_->Drain(absl::Now() + absl::Seconds(60)));
  EXPECT_TRUE(Advertises(None()));
}

}  // namespace
}  // namespace switchyard::expert_worker
