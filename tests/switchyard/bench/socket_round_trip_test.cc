#include "switchyard/bench/limits/socket_round_trip.h"

#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::bench {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

TEST(SocketRoundTripTest, EveryKindAndWayOfWaiting) {
  for (const SocketKind kind : {SocketKind::kTcp, SocketKind::kUnix}) {
    for (const bool spin : {false, true}) {
      // More than a socket's buffer holds, and two peers.
      const auto trip = MeasureRoundTrip({.kind = kind,
                                          .spin = spin,
                                          .request_bytes = 2304,
                                          .reply_bytes = 1 << 20,
                                          .peers = 2},
                                         0);
      ASSERT_THAT(trip.status(), IsOk());
      EXPECT_GT(trip->median, 0);
      EXPECT_GE(trip->p99, trip->median);
    }
  }
}

TEST(SocketRoundTripTest, MoreBytesTakeLonger) {
  const auto small = MeasureRoundTrip({.kind = SocketKind::kUnix}, 0.05);
  const auto large =
      MeasureRoundTrip({.kind = SocketKind::kUnix, .reply_bytes = 64 << 20}, 0);
  ASSERT_THAT(small.status(), IsOk());
  ASSERT_THAT(large.status(), IsOk());
  EXPECT_GT(large->median, small->median);
}

TEST(SocketRoundTripTest, RefusesEmptyMessages) {
  EXPECT_THAT(
      MeasureRoundTrip({.request_bytes = 0}, 0).status(),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 or more")));
  EXPECT_THAT(MeasureRoundTrip({.peers = 0}, 0).status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace switchyard::bench
