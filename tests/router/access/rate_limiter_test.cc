#include "router/access/rate_limiter.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_clock.h"

namespace switchyard::router {
namespace {

constexpr absl::Duration kNow = absl::ZeroDuration();

class RateLimiterTest : public ::testing::Test {
 protected:
  absl::Duration Take(const char* client, const ClientLimits& limits) {
    return limiter_.TakeRequest(client, limits);
  }

  testing::FakeClock clock_;
  RateLimiter limiter_{&clock_};
};

TEST_F(RateLimiterTest, AMinutesWorthAtOnceThenEvenly) {
  const ClientLimits limits = {.requests_per_minute = 6};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Take("a", limits), kNow) << i;
  EXPECT_NEAR(absl::ToDoubleSeconds(Take("a", limits)), 10, 0.01);
  clock_.Advance(absl::Seconds(9));
  EXPECT_NEAR(absl::ToDoubleSeconds(Take("a", limits)), 1, 0.01);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(Take("a", limits), kNow);
  EXPECT_GT(Take("a", limits), kNow);
  // A long pause saves up no more than a minute's worth.
  clock_.Advance(absl::Hours(5));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Take("a", limits), kNow) << i;
  EXPECT_GT(Take("a", limits), kNow);
}

TEST_F(RateLimiterTest, ClientsDoNotTakeFromOneAnother) {
  const ClientLimits limits = {.requests_per_minute = 1};
  EXPECT_EQ(Take("a", limits), kNow);
  EXPECT_GT(Take("a", limits), kNow);
  EXPECT_EQ(Take("b", limits), kNow);
}

TEST_F(RateLimiterTest, TokensArePaidAfterwards) {
  const ClientLimits limits = {.tokens_per_minute = 600};
  EXPECT_EQ(Take("a", limits), kNow);
  limiter_.ChargeTokens("a", limits, 600);
  EXPECT_EQ(Take("a", limits), kNow);  // nothing is owed
  limiter_.ChargeTokens("a", limits, 1200);
  EXPECT_NEAR(absl::ToDoubleSeconds(Take("a", limits)), 120, 0.01);
  clock_.Advance(absl::Seconds(121));
  EXPECT_EQ(Take("a", limits), kNow);
}

TEST_F(RateLimiterTest, NoLimitsNoWaiting) {
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(Take("a", {}), kNow);
  limiter_.ChargeTokens("a", {}, 1'000'000'000);
  EXPECT_EQ(Take("a", {}), kNow);
}

TEST_F(RateLimiterTest, AClockSetBackFillsNothingAndBreaksNothing) {
  const ClientLimits limits = {.requests_per_minute = 1};
  EXPECT_EQ(Take("a", limits), kNow);
  clock_.Advance(-absl::Hours(1));
  EXPECT_GT(Take("a", limits), kNow);
  clock_.Advance(absl::Minutes(1));
  EXPECT_EQ(Take("a", limits), kNow);
}

}  // namespace
}  // namespace switchyard::router
