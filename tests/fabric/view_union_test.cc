#include "fabric/membership/view_union.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fabric/fabric_members.h"

namespace switchyard::fabric {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ViewUpdate Update(bool complete, bool settled, std::vector<Member> members,
                  std::vector<std::string> removed = {}) {
  ViewUpdate update;
  update.complete = complete;
  update.settled = settled;
  update.members = std::move(members);
  update.removed = std::move(removed);
  return update;
}

std::vector<std::string> Ids(const View& view) {
  std::vector<std::string> ids;
  for (const Member& member : view.members) ids.push_back(member.instance_id);
  return ids;
}

const Member kA = ExpertMember("a", "1.1.1.1:1");
const Member kB = ExpertMember("b", "1.1.1.1:2");
const Member kC = ExpertMember("c", "1.1.1.1:3");

TEST(ViewUnion, NobodySpoke) {
  ViewUnion views;
  EXPECT_FALSE(views.Merge().settled);
  EXPECT_THAT(views.Merge().members, IsEmpty());
}

TEST(ViewUnion, FollowsOneRouter) {
  ViewUnion views;
  views.Connected("r");
  views.Apply("r", Update(true, true, {kA, kB}));
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("a", "b"));
  Member changed = kB;
  changed.state = MemberState::kDraining;
  ++changed.revision;
  views.Apply("r", Update(false, true, {changed, kC}, {"a"}));
  const View view = views.Merge();
  EXPECT_THAT(Ids(view), ElementsAre("b", "c"));
  EXPECT_TRUE(view.settled);
  ASSERT_NE(view.Find("b"), nullptr);
  EXPECT_EQ(view.Find("b")->state, MemberState::kDraining);
  EXPECT_EQ(view.Find("a"), nullptr);
}

TEST(ViewUnion, KeepsTheLastViewWithoutARouter) {
  ViewUnion views;
  views.Connected("r");
  views.Apply("r", Update(true, true, {kA, kB}));
  views.Disconnected("r");
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("a", "b"));
  EXPECT_TRUE(views.Merge().settled);
}

// A router that has restarted knows nobody at first, and takes nobody away.
TEST(ViewUnion, ARestartedRouterCountsOnceItHasSettled) {
  ViewUnion views;
  views.Connected("r");
  views.Apply("r", Update(true, true, {kA, kB}));
  views.Disconnected("r");
  views.Connected("r");
  views.Apply("r", Update(true, false, {kC}));
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("a", "b", "c"));
  views.Apply("r", Update(false, false, {kB}));
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("a", "b", "c"));
  views.Apply("r", Update(false, true, {}));
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("b", "c"));
}

TEST(ViewUnion, TheUnionOfConnectedRoutersCounts) {
  ViewUnion views;
  for (const char* router : {"r", "s"}) views.Connected(router);
  views.Apply("r", Update(true, true, {kA}));
  views.Apply("s", Update(true, true, {kB}));
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("a", "b"));
  // While another router answers, one that is gone has no say.
  views.Disconnected("r");
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("b"));
  views.Disconnected("s");
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("a", "b"));
  views.Forget("r");
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("b"));
}

TEST(ViewUnion, ALaterRevisionCounts) {
  Member later = kA;
  later.revision = kA.revision + 1;
  later.zone = "later";
  for (const auto& [first, second] :
       {std::pair(later, kA), std::pair(kA, later)}) {
    ViewUnion views;
    for (const char* router : {"r", "s"}) views.Connected(router);
    views.Apply("r", Update(true, true, {first}));
    views.Apply("s", Update(true, true, {second}));
    EXPECT_EQ(views.Merge().members[0].zone, "later");
  }
}

TEST(ViewUnion, AnAddressIsItsLastInstances) {
  Member ghost = kA;
  ghost.started_unix_millis = 10;
  Member successor = ExpertMember("b", kA.address);
  successor.started_unix_millis = 20;
  Member other_role = AttentionMember("c", kA.address);
  ViewUnion views;
  for (const char* router : {"r", "s"}) views.Connected(router);
  views.Apply("r", Update(true, true, {ghost, other_role}));
  views.Apply("s", Update(true, true, {successor}));
  EXPECT_THAT(Ids(views.Merge()), ElementsAre("b", "c"));
}

TEST(ViewUnion, TakesTheFullestHeat) {
  ViewUnion views;
  for (const char* router : {"r", "s"}) views.Connected(router);
  ViewUpdate update = Update(true, true, {});
  update.heat = {1, 9};
  views.Apply("r", update);
  update.heat = {5, 2, 3};
  views.Apply("s", update);
  EXPECT_THAT(views.Merge().heat, ElementsAre(5, 9, 3));
}

}  // namespace
}  // namespace switchyard::fabric
