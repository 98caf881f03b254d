#include "fabric/wire/expert_terms.h"

#include "gtest/gtest.h"

namespace switchyard::fabric {
namespace {

TEST(ExpertTermsTest, TheNewestVersionThatBothSpeak) {
  EXPECT_EQ(CommonVersion({2, 3}, {2, 3}), 3u);
  EXPECT_EQ(CommonVersion({2, 3}, {2, 2}), 2u);
  EXPECT_EQ(CommonVersion({2, 2}, {2, 5}), 2u);
  EXPECT_EQ(CommonVersion({3, 7}, {2, 5}), 5u);
  EXPECT_EQ(CommonVersion({3, 7}, {2, 2}), absl::nullopt);
  EXPECT_EQ(CommonVersion({2, 3}, {4, 5}), absl::nullopt);
  // Not a range.
  EXPECT_EQ(CommonVersion({5, 3}, {2, 5}), absl::nullopt);
}

TEST(ExpertTermsTest, AnOlderBuildsHelloHasOneVersion) {
  v1::Hello hello;
  hello.set_protocol_version(2);
  EXPECT_EQ(FormatRange(RangeOf(hello)), "2");
  hello.set_protocol_version(5);
  hello.set_oldest_protocol_version(3);
  EXPECT_EQ(FormatRange(RangeOf(hello)), "3 to 5");
}

}  // namespace
}  // namespace switchyard::fabric
