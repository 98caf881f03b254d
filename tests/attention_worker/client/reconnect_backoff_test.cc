#include "attention_worker/client/reconnect_backoff.h"

#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);
constexpr absl::Time kNever = absl::InfiniteFuture();

ReconnectBackoff::Options Options() {
  return {.min = absl::Milliseconds(100),
          .max = absl::Milliseconds(350),
          .refused = absl::Seconds(5)};
}

TEST(ReconnectBackoffTest, TheFirstAttemptIsAtOnceAndDoesNotWait) {
  const ReconnectBackoff backoff(Options());
  EXPECT_LE(backoff.next_attempt(), kNow);
  EXPECT_FALSE(backoff.waits_for_ready());
}

TEST(ReconnectBackoffTest, WhenNobodyListensTheNextOneWaitsForSomebody) {
  ReconnectBackoff backoff(Options());
  backoff.AttemptEnded(AttemptEnd::kUnreachable, kNever, kNow);
  EXPECT_EQ(backoff.next_attempt(), kNow);
  EXPECT_TRUE(backoff.waits_for_ready());
  // It waited in vain: a pause, and then one that brings the reason again.
  backoff.AttemptEnded(AttemptEnd::kUnreachable, kNever, kNow);
  EXPECT_EQ(backoff.next_attempt(), kNow + absl::Milliseconds(100));
  EXPECT_FALSE(backoff.waits_for_ready());
}

TEST(ReconnectBackoffTest, PausesDoubleUpToALimit) {
  ReconnectBackoff backoff(Options());
  for (const int pause : {100, 200, 350, 350}) {
    backoff.AttemptEnded(AttemptEnd::kLost, kNow, kNow);
    EXPECT_EQ(backoff.next_attempt(), kNow + absl::Milliseconds(pause));
  }
}

TEST(ReconnectBackoffTest, AGoodStreamsSuccessorComesAtOnce) {
  ReconnectBackoff backoff(Options());
  backoff.AttemptEnded(AttemptEnd::kLost, kNow, kNow);
  backoff.AttemptEnded(AttemptEnd::kLost, kNow, kNow);
  backoff.AttemptEnded(AttemptEnd::kLost, kNow - absl::Seconds(2), kNow);
  EXPECT_EQ(backoff.next_attempt(), kNow);
  backoff.AttemptEnded(AttemptEnd::kLost, kNow, kNow);
  EXPECT_EQ(backoff.next_attempt(), kNow + absl::Milliseconds(100));
}

TEST(ReconnectBackoffTest, ARefusalIsNotAskedAgainSoon) {
  ReconnectBackoff backoff(Options());
  backoff.AttemptEnded(AttemptEnd::kRefused, kNow - absl::Hours(1), kNow);
  EXPECT_EQ(backoff.next_attempt(), kNow + absl::Seconds(5));
  EXPECT_FALSE(backoff.waits_for_ready());
}

}  // namespace
}  // namespace switchyard::attention_worker
