#include "router/membership/registry.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fabric/fabric_members.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/matchers.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::FakeClock;
using ::switchyard::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> Ids(const std::vector<fabric::Member>& members) {
  std::vector<std::string> ids;
  for (const auto& member : members) ids.push_back(member.instance_id);
  return ids;
}

class MemberRegistryTest : public ::testing::Test {
 protected:
  MemberRegistryTest() {
    registry_.SetListener([this] { ++changes_; });
  }

  MemberRegistry::Options Options() {
    MemberRegistry::Options options;
    options.clock = &clock_;
    options.max_members = 3;
    options.router_id = std::string("r");
    return options;
  }

  FakeClock clock_;
  MemberRegistry registry_{Options()};
  int changes_ = 0;
  const fabric::Member a_ = fabric::ExpertMember("a", "1.1.1.1:1");
  const fabric::Member b_ = fabric::ExpertMember("b", "1.1.1.1:2");
};

TEST_F(MemberRegistryTest, TellsWhatChanged) {
  EXPECT_TRUE(registry_.Since(0).complete);
  EXPECT_THAT(registry_.Since(0).members, IsEmpty());
  ASSERT_TRUE(registry_.Report(a_).ok());
  EXPECT_EQ(changes_, 1);
  const fabric::ViewUpdate first = registry_.Since(0);
  EXPECT_THAT(Ids(first.members), ElementsAre("a"));
  EXPECT_EQ(first.router_id, "r");
  EXPECT_EQ(first.lease, absl::Milliseconds(500));
  ASSERT_TRUE(registry_.Report(b_).ok());
  const fabric::ViewUpdate second = registry_.Since(first.version);
  EXPECT_FALSE(second.complete);
  EXPECT_THAT(Ids(second.members), ElementsAre("b"));
  // The same again is a heartbeat.
  ASSERT_TRUE(registry_.Report(b_).ok());
  EXPECT_EQ(registry_.version(), second.version);
  EXPECT_EQ(changes_, 2);
  fabric::Member changed = b_;
  changed.holdings.Insert(0, 0);
  ASSERT_TRUE(registry_.Report(changed).ok());
  EXPECT_THAT(registry_.Since(second.version).members, ElementsAre(changed));
  registry_.Leave("a");
  registry_.Leave("a");
  const fabric::ViewUpdate last = registry_.Since(first.version);
  EXPECT_THAT(last.removed, ElementsAre("a"));
  EXPECT_THAT(Ids(last.members), ElementsAre("b"));
  EXPECT_EQ(changes_, 4);
}

TEST_F(MemberRegistryTest, SilentMembersGoWhenTheirLeaseRunsOut) {
  ASSERT_TRUE(registry_.Report(a_).ok());
  ASSERT_TRUE(registry_.Report(b_).ok());
  clock_.Advance(absl::Milliseconds(400));
  ASSERT_TRUE(registry_.Heartbeat("b").ok());
  registry_.Expire();
  EXPECT_THAT(Ids(registry_.members()), ElementsAre("a", "b"));
  const uint64_t before = registry_.version();
  clock_.Advance(absl::Milliseconds(100));
  registry_.Expire();
  EXPECT_THAT(Ids(registry_.members()), ElementsAre("b"));
  EXPECT_THAT(registry_.Since(before).removed, ElementsAre("a"));
  EXPECT_THAT(registry_.Heartbeat("a"), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_TRUE(registry_.Report(a_).ok());
  // Gone and back: a member, not a loss.
  EXPECT_THAT(registry_.Since(before).removed, IsEmpty());
  EXPECT_THAT(Ids(registry_.Since(before).members), ElementsAre("a"));
}

TEST_F(MemberRegistryTest, ARestartedWorkerReplacesItsGhost) {
  fabric::Member ghost = a_;
  ghost.started_unix_millis = 1000;
  ASSERT_TRUE(registry_.Report(ghost).ok());
  fabric::Member successor = a_;
  successor.instance_id = "a2";
  successor.started_unix_millis = 2000;
  ASSERT_TRUE(registry_.Report(successor).ok());
  EXPECT_THAT(Ids(registry_.members()), ElementsAre("a2"));
  // The ghost does not come back.
  EXPECT_THAT(registry_.Report(ghost),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("a2, which started later")));
  // The other kind of worker is no ghost.
  ASSERT_TRUE(registry_.Report(fabric::AttentionMember("c", a_.address)).ok());
  EXPECT_THAT(Ids(registry_.members()), ElementsAre("a2", "c"));
}

TEST_F(MemberRegistryTest, TakesNoMoreThanItsMost) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(registry_
                    .Report(fabric::ExpertMember(
                        absl::StrCat(i), absl::StrCat("1.1.1.1:", 10 + i)))
                    .ok());
  }
  EXPECT_THAT(registry_.Report(a_),
              StatusIs(absl::StatusCode::kResourceExhausted));
  registry_.Leave("1");
  EXPECT_TRUE(registry_.Report(a_).ok());
}

TEST_F(MemberRegistryTest, RefusesBadReports) {
  fabric::Member bad = a_;
  bad.instance_id.clear();
  EXPECT_THAT(registry_.Report(bad),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(registry_.members(), IsEmpty());
}

TEST_F(MemberRegistryTest, SettlesAfterAWhile) {
  EXPECT_FALSE(registry_.Since(0).settled);
  clock_.Advance(absl::Seconds(2));
  registry_.Expire();
  EXPECT_TRUE(registry_.Since(0).settled);
  EXPECT_EQ(changes_, 1);
}

TEST_F(MemberRegistryTest, WhoIsFarBehindGetsEverything) {
  ASSERT_TRUE(registry_.Report(b_).ok());
  const uint64_t early = registry_.version();
  for (int i = 0; i < 5000; ++i) {
    ASSERT_TRUE(registry_.Report(a_).ok());
    registry_.Leave("a");
  }
  EXPECT_TRUE(registry_.Since(early).complete);
  EXPECT_THAT(Ids(registry_.Since(early).members), ElementsAre("b"));
  EXPECT_FALSE(registry_.Since(registry_.version() - 10).complete);
}

TEST_F(MemberRegistryTest, HeatAddsUpAndFades) {
  registry_.AddHeat({100, 0});
  registry_.AddHeat({100, 8});
  EXPECT_THAT(registry_.heat(), ElementsAre(200, 8));
  clock_.Advance(absl::Minutes(1));
  EXPECT_THAT(registry_.heat(), ElementsAre(100, 4));
  registry_.AddHeat({1, 1});
  EXPECT_THAT(registry_.heat(), ElementsAre(101, 5));
  registry_.AddHeat({7});  // another model
  EXPECT_THAT(registry_.heat(), ElementsAre(7));
}

}  // namespace
}  // namespace switchyard::router
