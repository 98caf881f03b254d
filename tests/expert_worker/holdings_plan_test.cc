#include "expert_worker/placement/holdings_plan.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::expert_worker {
namespace {

using Pair = experts::ExpertEngine::Pair;
using fabric::Member;
using fabric::MemberState;
using fabric::View;
using ::testing::IsEmpty;

constexpr int kLayers = 2;
constexpr int kExperts = 32;

model::ExpertSet None() { return model::ExpertSet(kLayers, kExperts); }
model::ExpertSet All() {
  model::ExpertSet all = None();
  for (int l = 0; l < kLayers; ++l) {
    for (int e = 0; e < kExperts; ++e) all.Insert(l, e);
  }
  return all;
}

Member Worker(const std::string& id, const model::ExpertSet& holdings) {
  Member member;
  member.instance_id = id;
  member.role = fabric::MemberRole::kExpertWorker;
  member.address = absl::StrCat("host-", id, ":1");
  member.model_fingerprint = "f00d";
  member.weight_format = "q8";
  member.state = MemberState::kServing;
  member.expert_bytes = 100;
  member.budget_experts = 1000;
  member.replicas = 2;
  member.holdings = holdings;
  return member;
}

View ViewOf(std::vector<Member> members) {
  View view;
  view.settled = true;
  view.members = std::move(members);
  std::sort(view.members.begin(), view.members.end(),
            [](const Member& a, const Member& b) {
              return a.instance_id < b.instance_id;
            });
  return view;
}

class HoldingsPlannerTest : public ::testing::Test {
 protected:
  static HoldingsPlanner::Options Options() {
    HoldingsPlanner::Options options;
    options.instance_id = "me";
    options.experts = All();
    options.join_delay = absl::ZeroDuration();
    return options;
  }

  HoldingsPlan Plan(const View& view, const model::ExpertSet& held,
                    bool draining = false) {
    return planner_.Plan(view, held, draining, now_);
  }

  // What the planner would have this worker hold.
  model::ExpertSet Wanted(const View& view) {
    model::ExpertSet wanted = None();
    for (const Pair& pair : Plan(view, None()).load) {
      wanted.Insert(pair.layer, pair.expert);
    }
    return wanted;
  }

  absl::Time now_ = absl::UnixEpoch();
  HoldingsPlanner planner_{Options()};
};

// Those who come together are placed together.
TEST_F(HoldingsPlannerTest, NewcomersWaitForOneAnother) {
  HoldingsPlanner::Options options = Options();
  options.join_delay = absl::Milliseconds(300);
  HoldingsPlanner planner(options);
  std::vector<Member> members = {Worker("me", None())};
  const auto plan = [&] {
    return planner.Plan(ViewOf(members), None(), false, now_);
  };
  EXPECT_FALSE(plan().ready);
  now_ += absl::Milliseconds(200);
  members.push_back(Worker("a", None()));
  EXPECT_FALSE(plan().ready);
  now_ += absl::Milliseconds(299);
  EXPECT_FALSE(plan().ready);
  now_ += absl::Milliseconds(1);
  EXPECT_TRUE(plan().ready);
  EXPECT_EQ(plan().epoch, 1);
  // They do not wait for ever.
  int64_t waited = 0;
  for (; plan().epoch == 1; ++waited) {
    ASSERT_LT(waited, 10);
    members.push_back(Worker(absl::StrCat("b", waited), None()));
    plan();
    now_ += absl::Milliseconds(250);
  }
  EXPECT_EQ(waited, 5);
  // Who goes meanwhile was never there.
  const int64_t wanted = plan().wanted;
  members.push_back(Worker("c", None()));
  plan();
  members.pop_back();
  now_ += absl::Seconds(1);
  EXPECT_EQ(plan().wanted, wanted);
  EXPECT_EQ(plan().epoch, 2);
}

TEST_F(HoldingsPlannerTest, WaitsUntilEnoughIsKnown) {
  View view = ViewOf({Worker("me", None())});
  view.settled = false;
  EXPECT_FALSE(Plan(view, None()).ready);
  EXPECT_FALSE(Plan(ViewOf({Worker("a", None())}), None()).ready);
  EXPECT_TRUE(Plan(ViewOf({Worker("me", None())}), None()).ready);
}

TEST_F(HoldingsPlannerTest, AloneItLoadsEverything) {
  const HoldingsPlan plan = Plan(ViewOf({Worker("me", None())}), None());
  EXPECT_EQ(plan.load.size(), 64u);
  EXPECT_EQ(plan.wanted, 64);
  EXPECT_EQ(plan.first_extra, 64u);
  EXPECT_EQ(plan.under_replicated, 64);
  EXPECT_EQ(plan.epoch, 1);
  // One copy is all that one worker can have.
  EXPECT_EQ(Plan(ViewOf({Worker("me", All())}), All()).under_replicated, 0);
}

TEST_F(HoldingsPlannerTest, LoadsWhatFewestHoldFirstAndThenTheHottest) {
  model::ExpertSet others = None();
  for (int e = 0; e < kExperts; ++e) others.Insert(0, e);
  View view = ViewOf({Worker("me", None()), Worker("a", others)});
  view.heat.assign(64, 10);
  view.heat[kExperts + 7] = 1000;  // (1, 7)
  view.heat[5] = 2000;             // (0, 5)
  const HoldingsPlan plan = Plan(view, None());
  ASSERT_EQ(plan.load.size(), 64u);
  // Layer 1 has no holder at all; of two workers each is some experts' first.
  const auto place = [&plan](Pair pair) {
    return std::find(plan.load.begin(), plan.load.end(), pair) -
           plan.load.begin();
  };
  for (int i = 0; i < 32; ++i) EXPECT_EQ(plan.load[i].layer, 1) << i;
  for (int i = 32; i < 64; ++i) EXPECT_EQ(plan.load[i].layer, 0) << i;
  HoldingsPlanner cold(Options());
  view.heat.clear();
  const HoldingsPlan without = cold.Plan(view, None(), false, now_);
  const auto cold_place = [&without](Pair pair) {
    return std::find(without.load.begin(), without.load.end(), pair) -
           without.load.begin();
  };
  EXPECT_LT(place({1, 7}), cold_place({1, 7}));
  EXPECT_LT(place({0, 5}), cold_place({0, 5}));
}

TEST_F(HoldingsPlannerTest, OtherModelsAreNotItsPeers) {
  Member other = Worker("a", None());
  other.model_fingerprint = "other";
  Member format = Worker("b", None());
  format.weight_format = "q4";
  EXPECT_EQ(
      Plan(ViewOf({Worker("me", None()), other, format}), None()).load.size(),
      64u);
}

// Kept until those who should hold them, do.
TEST_F(HoldingsPlannerTest, LetsGoOnlyOfWhatOthersHoldThatShould) {
  const auto view = [](const model::ExpertSet& mine,
                       const model::ExpertSet& theirs) {
    return ViewOf({Worker("me", mine), Worker("a", theirs), Worker("b", theirs),
                   Worker("c", theirs)});
  };
  EXPECT_THAT(Plan(view(All(), None()), All()).withdraw, IsEmpty());
  const HoldingsPlan plan = Plan(view(All(), All()), All());
  const model::ExpertSet wanted = Wanted(view(None(), None()));
  EXPECT_EQ(plan.withdraw.size(), static_cast<size_t>(64 - wanted.size()));
  for (const Pair& pair : plan.withdraw) {
    EXPECT_FALSE(wanted.Contains(pair.layer, pair.expert));
  }
  EXPECT_THAT(plan.load, IsEmpty());
  // Copies of workers that drain do not count.
  View draining = view(All(), All());
  for (Member& member : draining.members) {
    if (member.instance_id == "b") member.state = MemberState::kDraining;
  }
  HoldingsPlanner fresh(Options());
  for (const Pair& pair : fresh.Plan(draining, All(), false, now_).withdraw) {
    EXPECT_FALSE(Wanted(ViewOf({Worker("me", None()), Worker("a", None()),
                                Worker("c", None())}))
                     .Contains(pair.layer, pair.expert));
  }
}

// Of the workers that hold too much, not all let go at once of the same copy.
TEST_F(HoldingsPlannerTest, NobodyLetsGoOfTheLastCopies) {
  std::vector<Member> members;
  for (const char* id : {"a", "b", "c", "d"}) {
    members.push_back(Worker(id, All()));
  }
  std::vector<int> left(64, 4);
  for (const char* id : {"a", "b", "c", "d"}) {
    HoldingsPlanner::Options options = Options();
    options.instance_id = id;
    HoldingsPlanner planner(options);
    for (const Pair& pair :
         planner.Plan(ViewOf(members), All(), false, now_).withdraw) {
      --left[pair.layer * kExperts + pair.expert];
    }
  }
  for (const int copies : left) EXPECT_EQ(copies, 2);
}

TEST_F(HoldingsPlannerTest, TheLostAreWaitedForAWhile) {
  const View both = ViewOf({Worker("me", None()), Worker("a", None()),
                            Worker("b", None()), Worker("c", None())});
  const model::ExpertSet mine = Wanted(both);
  EXPECT_LT(mine.size(), 64);
  const int64_t epoch = Plan(both, mine).epoch;
  const View without =
      ViewOf({Worker("me", mine), Worker("b", None()), Worker("c", None())});
  HoldingsPlan plan = Plan(without, mine);
  EXPECT_EQ(plan.epoch, epoch);
  EXPECT_THAT(plan.load, IsEmpty());
  now_ += absl::Milliseconds(999);
  EXPECT_THAT(Plan(without, mine).load, IsEmpty());
  // It is back: nothing has happened.
  EXPECT_EQ(Plan(both, mine).epoch, epoch);
  EXPECT_THAT(Plan(without, mine).load, IsEmpty());
  now_ += absl::Seconds(1);
  plan = Plan(without, mine);
  EXPECT_EQ(plan.epoch, epoch + 1);
  EXPECT_FALSE(plan.load.empty());
}

TEST_F(HoldingsPlannerTest, WhoComesBackToAnAddressHasItsShare) {
  Member successor = Worker("later", None());
  successor.address = Worker("a", None()).address;
  const std::vector<Member> rest = {Worker("me", None()), Worker("b", None())};
  const model::ExpertSet before =
      Wanted(ViewOf({rest[0], rest[1], Worker("a", None())}));
  EXPECT_EQ(Wanted(ViewOf({rest[0], rest[1], successor})), before);
}

TEST_F(HoldingsPlannerTest, WhoDrainsIsReplacedAtOnce) {
  Member leaving = Worker("a", All());
  const View before = ViewOf({Worker("me", None()), leaving,
                              Worker("b", None()), Worker("c", None())});
  const model::ExpertSet mine = Wanted(before);
  leaving.state = MemberState::kDraining;
  const HoldingsPlan plan =
      Plan(ViewOf({Worker("me", mine), leaving, Worker("b", None()),
                   Worker("c", None())}),
           mine);
  EXPECT_FALSE(plan.load.empty());
}

TEST_F(HoldingsPlannerTest, ADrainingWorkerHandsOver) {
  Member me = Worker("me", All());
  me.state = MemberState::kDraining;
  model::ExpertSet half = None();
  for (int e = 0; e < kExperts; ++e) half.Insert(1, e);
  HoldingsPlan plan =
      Plan(ViewOf({me, Worker("a", half)}), All(), /*draining=*/true);
  EXPECT_THAT(plan.load, IsEmpty());
  EXPECT_EQ(plan.withdraw.size(), 32u);
  for (const Pair& pair : plan.withdraw) EXPECT_EQ(pair.layer, 1);
  // The last one has nobody to wait for.
  plan = Plan(ViewOf({me}), All(), /*draining=*/true);
  EXPECT_EQ(plan.withdraw.size(), 64u);
}

TEST_F(HoldingsPlannerTest, FurtherCopiesOfHotExpertsComeLast) {
  std::vector<Member> members = {Worker("me", None())};
  for (const char* id : {"a", "b", "c", "d", "e"}) {
    members.push_back(Worker(id, None()));
  }
  View view = ViewOf(members);
  view.heat.assign(64, 2000);
  view.heat[9] = 60'000;
  const HoldingsPlan plan = Plan(view, None());
  const HoldingsPlan cold =
      HoldingsPlanner(Options()).Plan(ViewOf(members), None(), false, now_);
  const Pair hot{0, 9};
  const bool mine_anyway =
      std::find(cold.load.begin(), cold.load.end(), hot) != cold.load.end();
  EXPECT_EQ(plan.load.size(), cold.load.size() + (mine_anyway ? 0 : 1));
  EXPECT_EQ(plan.first_extra, cold.load.size());
  if (!mine_anyway) {
    EXPECT_EQ(plan.load.back(), hot);
  }
}

}  // namespace
}  // namespace switchyard::expert_worker
