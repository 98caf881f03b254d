#include "fabric/wire/membership_codec.h"

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fabric/fabric_members.h"
#include "tests/testing/matchers.h"

namespace switchyard::fabric {
namespace {

using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

TEST(MembershipCodec, MembersComeBackTheSame) {
  Member expert = ExpertMember("a", "1.2.3.4:5");
  expert.revision = 3;
  expert.started_unix_millis = 1234;
  expert.state = MemberState::kDraining;
  for (const Member& member : {expert, AttentionMember("b", "unix:/s")}) {
    const auto back = MemberFromProto(MemberToProto(member));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, member);
  }
}

TEST(MembershipCodec, UpdatesComeBackTheSame) {
  ViewUpdate update;
  update.version = 9;
  update.router_id = std::string("r");
  update.complete = update.settled = true;
  update.members = {ExpertMember("a", "1.2.3.4:5")};
  update.removed = {"x", "y"};
  update.heat = {1, 2, 3};
  update.heartbeat = absl::Milliseconds(100);
  update.lease = absl::Milliseconds(500);
  const auto back = ViewUpdateFromProto(ViewUpdateToProto(update));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->version, 9u);
  EXPECT_EQ(back->router_id, "r");
  EXPECT_TRUE(back->complete && back->settled);
  EXPECT_EQ(back->members, update.members);
  EXPECT_EQ(back->removed, update.removed);
  EXPECT_EQ(back->heat, update.heat);
  EXPECT_EQ(back->heartbeat, update.heartbeat);
  EXPECT_EQ(back->lease, update.lease);
}

TEST(MembershipCodec, RefusesWhatTheContractForbids) {
  struct Case {
    const char* text;
    std::function<void(v1::Member*)> spoil;
  };
  const Case cases[] = {
      {"instance_id has 0", [](v1::Member* m) { m->clear_instance_id(); }},
      {"instance_id has 65",
       [](v1::Member* m) { m->set_instance_id(std::string(65, 'x')); }},
      {"role is 7",
       [](v1::Member* m) { m->set_role(static_cast<v1::MemberRole>(7)); }},
      {"role is 0", [](v1::Member* m) { m->clear_role(); }},
      {"state is 0", [](v1::Member* m) { m->clear_state(); }},
      {"no address", [](v1::Member* m) { m->clear_address(); }},
      {"no model_fingerprint",
       [](v1::Member* m) { m->clear_model_fingerprint(); }},
      {"zone has 257",
       [](v1::Member* m) { m->set_zone(std::string(257, 'z')); }},
      {"expert bitmap", [](v1::Member* m) { m->set_holdings("x"); }},
      {"more than this program can",
       [](v1::Member* m) { m->set_num_layers(1u << 31); }},
      {"without num_layers",
       [](v1::Member* m) {
         m->clear_num_layers();
         m->clear_holdings();
       }},
      {"expert_bytes is 0", [](v1::Member* m) { m->clear_expert_bytes(); }},
      {"too large", [](v1::Member* m) { m->set_budget_experts(~uint64_t{0}); }},
      {"replicas", [](v1::Member* m) { m->clear_replicas(); }},
      {"started_unix_millis",
       [](v1::Member* m) { m->set_started_unix_millis(~uint64_t{0}); }},
  };
  for (const Case& one : cases) {
    v1::Member member = MemberToProto(ExpertMember("a", "1.2.3.4:5"));
    one.spoil(&member);
    EXPECT_THAT(
        MemberFromProto(member),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(one.text)))
        << one.text;
  }
  v1::ViewUpdate update;
  EXPECT_THAT(ViewUpdateFromProto(update),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("heartbeats every 0")));
}

}  // namespace
}  // namespace switchyard::fabric
