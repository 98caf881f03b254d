#include "router/membership/topology.h"

#include <string>

#include "base/json.h"
#include "gtest/gtest.h"
#include "tests/fabric/fabric_members.h"
#include "tests/testing/fake_clock.h"

namespace switchyard::router {
namespace {

Json Topology(const MemberRegistry& registry) {
  auto parsed = ParseJson(TopologyJson(registry));
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return *std::move(parsed);
}

TEST(Topology, SaysWhoHoldsWhat) {
  testing::FakeClock clock;
  MemberRegistry::Options options;
  options.clock = &clock;
  options.router_id = "router-1";
  MemberRegistry registry(options);
  Json topology = Topology(registry);
  EXPECT_EQ(topology["members"], Json::array());
  EXPECT_EQ(topology["holders"], Json::array());
  EXPECT_EQ(topology["settled"], false);

  fabric::Member a = fabric::ExpertMember("a", "1.1.1.1:1");  // holds (1, 4)
  a.holdings.Insert(1, 0);
  fabric::Member c = fabric::ExpertMember("c", "1.1.1.1:2");
  fabric::Member leaving = fabric::ExpertMember("d", "1.1.1.1:3");
  leaving.state = fabric::MemberState::kDraining;
  fabric::Member other = fabric::ExpertMember("e", "1.1.1.1:4");
  other.model_fingerprint = "another";
  for (const auto& member :
       {a, fabric::AttentionMember("b", "1.1.1.1:5"), c, leaving, other}) {
    ASSERT_TRUE(registry.Report(member).ok());
  }
  registry.AddHeat({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
  topology = Topology(registry);
  EXPECT_EQ(topology["router_id"], "router-1");
  ASSERT_EQ(topology["members"].size(), 5u);
  EXPECT_EQ(topology["members"][0]["instance_id"], "a");
  EXPECT_EQ(topology["members"][0]["held_experts"], 2);
  EXPECT_EQ(topology["members"][1]["role"], "attention_worker");
  EXPECT_FALSE(topology["members"][1].contains("held_experts"));
  EXPECT_EQ(topology["members"][3]["state"], "draining");
  EXPECT_EQ(topology["num_layers"], 3);
  EXPECT_EQ(topology["num_experts"], 5);
  EXPECT_EQ(topology["holders"].size(), 3u);
  EXPECT_EQ(topology["holders"][1].dump(), "[[0],[],[],[],[0,2]]");
  EXPECT_EQ(topology["holders"][0].dump(), "[[],[],[],[],[]]");
  // Of layer 1; the others have no holder at all, as dense ones.
  EXPECT_EQ(topology["under_replicated"], 4);
  EXPECT_EQ(topology["heat"][1].dump(), "[6,7,8,9,10]");
}

}  // namespace
}  // namespace switchyard::router
