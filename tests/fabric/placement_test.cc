#include "fabric/placement/placement.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fabric/placement/rendezvous.h"
#include "gtest/gtest.h"

namespace switchyard::fabric {
namespace {

constexpr int64_t kPlenty = 1 << 20;

model::ExpertSet AllExperts(int layers, int experts) {
  model::ExpertSet all(layers, experts);
  for (int l = 0; l < layers; ++l) {
    for (int e = 0; e < experts; ++e) all.Insert(l, e);
  }
  return all;
}

// Ids as workers have them: drawn.
std::vector<PlacementMember> Members(int count, uint64_t seed,
                                     int64_t budget = kPlenty) {
  std::mt19937_64 random(seed);
  std::vector<PlacementMember> members;
  for (int i = 0; i < count; ++i) {
    members.push_back({.instance_id = absl::StrCat(absl::Hex(random())),
                       .budget = budget,
                       .host = "",
                       .zone = ""});
  }
  return members;
}

PlacementRequest Request(std::vector<PlacementMember> members,
                         const model::ExpertSet& experts, int replicas = 2) {
  PlacementRequest request;
  request.members = std::move(members);
  request.experts = experts;
  request.replicas = replicas;
  return request;
}

int64_t Held(const Placement& placement, const std::string& id) {
  return placement.ExpertsOf(id).size();
}

// Copies that members of `after` have to load, having what `before` says.
int64_t Loaded(const Placement& before, const Placement& after,
               const std::vector<PlacementMember>& members) {
  int64_t loaded = 0;
  for (const PlacementMember& member : members) {
    const model::ExpertSet had = before.ExpertsOf(member.instance_id);
    const model::ExpertSet has = after.ExpertsOf(member.instance_id);
    for (int l = 0; l < has.num_layers(); ++l) {
      for (int e = 0; e < has.num_experts(); ++e) {
        if (has.Contains(l, e) && !had.Contains(l, e)) ++loaded;
      }
    }
  }
  return loaded;
}

// Every pair is held by `replicas` different members, nobody beyond budget.
void CheckSound(const PlacementRequest& request, const Placement& placement) {
  std::map<std::string, int64_t> held;
  for (int l = 0; l < request.experts.num_layers(); ++l) {
    for (int e = 0; e < request.experts.num_experts(); ++e) {
      const auto holders = placement.HoldersOf(l, e);
      const std::set<int> distinct(holders.begin(), holders.end());
      ASSERT_EQ(distinct.size(), holders.size()) << l << "," << e;
      if (!request.experts.Contains(l, e)) {
        ASSERT_TRUE(holders.empty());
      }
      for (const int m : holders) ++held[placement.instance_id(m)];
    }
  }
  for (const PlacementMember& member : request.members) {
    ASSERT_LE(held[member.instance_id], member.budget) << member.instance_id;
    ASSERT_EQ(held[member.instance_id], Held(placement, member.instance_id));
  }
}

int64_t Copies(const PlacementRequest& request, const Placement& placement) {
  int64_t copies = 0;
  for (int l = 0; l < request.experts.num_layers(); ++l) {
    for (int e = 0; e < request.experts.num_experts(); ++e) {
      copies += static_cast<int64_t>(placement.HoldersOf(l, e).size());
    }
  }
  return copies;
}

TEST(Rendezvous, SharesFollowTheWeights) {
  const int64_t weights[] = {1000, 2000, 5000};
  int wins[3] = {};
  constexpr int kItems = 100'000;
  for (int item = 0; item < kItems; ++item) {
    int best = 0;
    for (int m = 1; m < 3; ++m) {
      if (RendezvousCost(MemberHash(absl::StrCat(m)), item, weights[m]) <
          RendezvousCost(MemberHash(absl::StrCat(best)), item, weights[best])) {
        best = m;
      }
    }
    ++wins[best];
  }
  for (int m = 0; m < 3; ++m) {
    const double expected = kItems * weights[m] / 8000.0;
    EXPECT_NEAR(wins[m], expected, 5 * std::sqrt(expected)) << m;
  }
}

// The numbers themselves: another machine or compiler must draw the same.
TEST(Rendezvous, IsTheSameEverywhere) {
  EXPECT_EQ(MemberHash("a"), uint64_t{6857225946766476583u});
  EXPECT_EQ(RendezvousCost(MemberHash("a"), 7, 12'288),
            uint64_t{10'033'757'072'042u});
}

TEST(Placement, NobodyHoldsNothing) {
  const model::ExpertSet experts = AllExperts(2, 8);
  const Placement placement = Placement::Compute(Request({}, experts));
  EXPECT_EQ(placement.num_members(), 0);
  EXPECT_TRUE(placement.HoldersOf(0, 0).empty());
  EXPECT_EQ(placement.missing_copies(), 32);
  EXPECT_EQ(placement.MemberIndex("a"), -1);
}

TEST(Placement, OneMemberHoldsAll) {
  const model::ExpertSet experts = AllExperts(2, 8);
  const auto members = Members(1, 1);
  const Placement placement = Placement::Compute(Request(members, experts));
  EXPECT_EQ(placement.ExpertsOf(members[0].instance_id), experts);
  EXPECT_EQ(placement.missing_copies(), 16);
}

TEST(Placement, IsSoundForManyShapes) {
  for (const int count : {2, 3, 5, 9, 16}) {
    for (const int replicas : {1, 2, 3}) {
      for (uint64_t seed = 0; seed < 4; ++seed) {
        const auto request =
            Request(Members(count, seed), AllExperts(5, 32), replicas);
        const Placement placement = Placement::Compute(request);
        CheckSound(request, placement);
        EXPECT_EQ(Copies(request, placement),
                  5 * 32 * std::min(replicas, count));
      }
    }
  }
}

TEST(Placement, LayersWithoutExpertsStayEmpty) {
  model::ExpertSet experts = AllExperts(4, 32);
  for (int e = 0; e < 32; ++e) experts.Erase(1, e);
  const auto request = Request(Members(4, 3), experts);
  const Placement placement = Placement::Compute(request);
  CheckSound(request, placement);
  EXPECT_EQ(Copies(request, placement), 3 * 32 * 2);
}

TEST(Placement, DoesNotDependOnTheMembersOrder) {
  auto members = Members(7, 11, 100);
  members[3].budget = 180;
  members[5].host = members[6].host = "h";
  const auto experts = AllExperts(6, 48);
  const Placement expected = Placement::Compute(Request(members, experts));
  std::mt19937 random(1);
  for (int i = 0; i < 5; ++i) {
    std::shuffle(members.begin(), members.end(), random);
    EXPECT_EQ(Placement::Compute(Request(members, experts)), expected);
  }
}

// Of the whole, and of each layer: a step waits for the layer's busiest.
TEST(Placement, SpreadsEachLayer) {
  for (const int count : {3, 4, 7, 16}) {
    const auto request = Request(Members(count, 5), AllExperts(12, 512));
    const Placement placement = Placement::Compute(request);
    const double share = 512.0 * 2 / count;
    for (int m = 0; m < count; ++m) {
      int64_t total = 0;
      for (int l = 0; l < 12; ++l) {
        int64_t held = 0;
        for (int e = 0; e < 512; ++e) {
          held += placement.ReplicaOf(m, l, e) >= 0 ? 1 : 0;
        }
        EXPECT_LE(held, share * 1.08 + 1) << count << " members, layer " << l;
        total += held;
      }
      EXPECT_GE(total, 12 * share * 0.93) << count << " members";
    }
  }
}

TEST(Placement, FollowsTheBudgets) {
  auto members = Members(4, 9, 4000);
  members[0].budget = 8000;
  const auto request = Request(members, AllExperts(10, 512));
  const Placement placement = Placement::Compute(request);
  CheckSound(request, placement);
  const double unit = 10 * 512 * 2 / 5.0;
  EXPECT_GE(Held(placement, members[0].instance_id), 1.5 * unit);
  EXPECT_LE(Held(placement, members[0].instance_id), 2.1 * unit);
  // With one copy the shares are exact.
  const Placement single =
      Placement::Compute(Request(members, AllExperts(10, 512), 1));
  EXPECT_NEAR(Held(single, members[0].instance_id), unit, 0.04 * unit);
  for (int m = 1; m < 4; ++m) {
    EXPECT_NEAR(Held(single, members[m].instance_id), unit / 2, 0.04 * unit);
  }
}

// Budgets that are just enough, in uneven pieces: every copy finds its place.
TEST(Placement, FillsBudgetsToTheLastExpert) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    auto members = Members(5, seed, 0);
    int64_t left = 6 * 32 * 2;
    for (int m = 0; m < 4; ++m) {
      const int64_t budget =
          std::min<int64_t>(6 * 32, 30 + static_cast<int64_t>(random() % 60));
      members[m].budget = budget;
      left -= budget;
    }
    if (left > 6 * 32) {  // more than one can hold of distinct experts
      members[0].budget += left - 6 * 32;
      left = 6 * 32;
    }
    members[4].budget = left;
    const auto request = Request(members, AllExperts(6, 32));
    const Placement placement = Placement::Compute(request);
    CheckSound(request, placement);
    EXPECT_EQ(placement.missing_copies(), 0) << "seed " << seed;
  }
}

// Too little for two copies: everything has one before anything has two.
TEST(Placement, CoversAllBeforeItCopies) {
  const auto request = Request(Members(3, 2, 70), AllExperts(5, 32));
  const Placement placement = Placement::Compute(request);
  CheckSound(request, placement);
  for (int l = 0; l < 5; ++l) {
    for (int e = 0; e < 32; ++e) {
      EXPECT_GE(placement.HoldersOf(l, e).size(), 1u) << l << "," << e;
    }
  }
  EXPECT_EQ(Copies(request, placement), 3 * 70);
  EXPECT_EQ(placement.missing_copies(), 5 * 32 * 2 - 3 * 70);
}

TEST(Placement, TooLittleForAllIsUsedUp) {
  const auto request = Request(Members(3, 2, 20), AllExperts(5, 32));
  const Placement placement = Placement::Compute(request);
  CheckSound(request, placement);
  EXPECT_EQ(Copies(request, placement), 60);
}

TEST(Placement, CopiesAreOnDifferentHosts) {
  auto members = Members(6, 4);
  for (int m = 0; m < 6; ++m) members[m].host = absl::StrCat("host", m / 2);
  const auto request = Request(members, AllExperts(8, 64));
  const Placement placement = Placement::Compute(request);
  CheckSound(request, placement);
  std::map<std::string, std::string> host;
  for (const auto& member : members) host[member.instance_id] = member.host;
  int together = 0;
  for (int l = 0; l < 8; ++l) {
    for (int e = 0; e < 64; ++e) {
      const auto holders = placement.HoldersOf(l, e);
      together += host[placement.instance_id(holders[0])] ==
                          host[placement.instance_id(holders[1])]
                      ? 1
                      : 0;
    }
  }
  EXPECT_EQ(together, 0);
}

TEST(Placement, CopiesAreInDifferentZonesAndStillOnTwoMembersOfOneHost) {
  auto members = Members(4, 4);
  for (int m = 0; m < 4; ++m) members[m].zone = m < 2 ? "a" : "b";
  const auto request = Request(members, AllExperts(4, 64));
  const Placement placement = Placement::Compute(request);
  for (int l = 0; l < 4; ++l) {
    for (int e = 0; e < 64; ++e) {
      std::set<std::string> zones;
      for (const int m : placement.HoldersOf(l, e)) {
        for (const auto& member : members) {
          if (member.instance_id == placement.instance_id(m)) {
            zones.insert(member.zone);
          }
        }
      }
      ASSERT_EQ(zones.size(), 2u) << l << "," << e;
    }
  }
  for (auto& member : members) member.host = "only";
  const Placement one_host =
      Placement::Compute(Request(members, AllExperts(4, 64)));
  EXPECT_EQ(one_host.missing_copies(), 0);
}

struct Move {
  int64_t loaded;
  int64_t least;
};

// The members change in steps; the least that has to be loaded at each is what
// the new ones' shares are, or what the remaining ones lack.
std::vector<Move> Moves(int layers, int experts, uint64_t seed) {
  const model::ExpertSet all = AllExperts(layers, experts);
  const auto members = Members(7, seed);
  const std::vector<std::pair<int, int>> steps = {
      {0, 3}, {0, 4}, {0, 7}, {5, 7}};
  std::vector<Move> moves;
  Placement before;
  std::vector<PlacementMember> had;
  for (const auto& [from, to] : steps) {
    const std::vector<PlacementMember> has(members.begin() + from,
                                           members.begin() + to);
    const Placement after = Placement::Compute(Request(has, all));
    if (!had.empty()) {
      const int64_t share = all.size() * 2 / static_cast<int64_t>(has.size());
      int64_t least = 0;
      for (const auto& member : has) {
        least += std::max<int64_t>(0, share - Held(before, member.instance_id));
      }
      moves.push_back({Loaded(before, after, has), least});
    }
    before = after;
    had = has;
  }
  return moves;
}

TEST(Placement, LittleMovesInTheRealModel) {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    for (const Move& move : Moves(48, 512, seed)) {
      EXPECT_LE(move.loaded, 1.05 * static_cast<double>(move.least)) << seed;
      EXPECT_GE(move.loaded, 0.95 * static_cast<double>(move.least)) << seed;
    }
  }
}

TEST(Placement, LittleMovesInTheDemoModel) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    int64_t loaded = 0;
    int64_t least = 0;
    for (const Move& move : Moves(8, 32, seed)) {
      EXPECT_LE(move.loaded, 1.13 * static_cast<double>(move.least)) << seed;
      loaded += move.loaded;
      least += move.least;
    }
    EXPECT_LE(loaded, 1.06 * static_cast<double>(least)) << seed;
  }
}

// What moves when one more comes goes to it.
TEST(Placement, OneMoreTakesItsShareAndLeavesTheRestAlone) {
  const model::ExpertSet all = AllExperts(16, 512);
  const auto members = Members(9, 21);
  for (int count = 2; count < 9; ++count) {
    const std::vector<PlacementMember> few(members.begin(),
                                           members.begin() + count);
    const std::vector<PlacementMember> more(members.begin(),
                                            members.begin() + count + 1);
    const Placement before = Placement::Compute(Request(few, all));
    const Placement after = Placement::Compute(Request(more, all));
    const double share = 2.0 * static_cast<double>(all.size()) / (count + 1);
    EXPECT_NEAR(Held(after, members[count].instance_id), share, 0.05 * share);
    EXPECT_LE(Loaded(before, after, few), 0.06 * share) << count;
  }
}

TEST(Placement, HotExpertsGetWhatBudgetsLeave) {
  auto request = Request(Members(6, 8, 8 * 32), AllExperts(8, 32));
  const Placement cold = Placement::Compute(request);
  request.heat.assign(8 * 32, 2000);
  EXPECT_EQ(Placement::Compute(request).extra_copies(), 0);
  request.heat[40] = 30'000;  // (1, 8): about 10 times the mean
  const Placement hot = Placement::Compute(request);
  CheckSound(request, hot);
  EXPECT_EQ(hot.HoldersOf(1, 8).size(), 6u);
  EXPECT_EQ(hot.extra_copies(), 4);
  for (int l = 0; l < 8; ++l) {
    for (int e = 0; e < 32; ++e) {
      for (size_t i = 0; i < 2; ++i) {
        EXPECT_EQ(hot.HoldersOf(l, e)[i], cold.HoldersOf(l, e)[i]);
      }
    }
  }
  // No more than there is room for.
  request = Request(Members(6, 8, 86), AllExperts(8, 32));
  request.heat.assign(8 * 32, 2000);
  request.heat[40] = request.heat[41] = 30'000;
  const Placement tight = Placement::Compute(request);
  CheckSound(request, tight);
  EXPECT_EQ(tight.missing_copies(), 0);
  EXPECT_GE(tight.extra_copies(), 3);  // of 6 * 86 - 512; one has both already
}

TEST(Placement, AHotExpertKeepsItsCopiesForAWhile) {
  auto request = Request(Members(6, 8), AllExperts(1, 32));
  // 4.4 times the mean: more than 3 * 3 / 2, less than 2 * 4 / 2 for a third.
  request.heat.assign(32, 2000);
  request.heat[3] = 10'000;
  EXPECT_EQ(Placement::Compute(request).HoldersOf(0, 3).size(), 2u);
  request.holders_now.assign(32, 2);
  request.holders_now[3] = 4;
  EXPECT_EQ(Placement::Compute(request).HoldersOf(0, 3).size(), 4u);
  request.holders_now[3] = 6;
  EXPECT_EQ(Placement::Compute(request).HoldersOf(0, 3).size(), 4u);
  request.heat[3] = 2000;
  EXPECT_EQ(Placement::Compute(request).HoldersOf(0, 3).size(), 2u);
}

TEST(Placement, LittleHeatSaysNothing) {
  auto request = Request(Members(6, 8), AllExperts(1, 32));
  request.heat.assign(32, 1);
  request.heat[3] = 900;
  EXPECT_EQ(Placement::Compute(request).extra_copies(), 0);
}

}  // namespace
}  // namespace switchyard::fabric
