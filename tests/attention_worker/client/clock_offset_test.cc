#include "attention_worker/client/clock_offset.h"

#include <random>

#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);

TEST(ClockOffsetTest, TellsTheDirectionsApart) {
  constexpr absl::Duration kAhead = absl::Seconds(1234);
  ClockOffset clock;
  // The first exchange is all there is to go by: half each.
  ClockOffset::Wire wire =
      clock.Observe(kNow, kNow + kAhead + absl::Microseconds(50),
                    absl::Milliseconds(2), kNow + absl::Microseconds(2100));
  EXPECT_EQ(wire.out, absl::Microseconds(50));
  EXPECT_EQ(wire.back, absl::Microseconds(50));
  EXPECT_EQ(clock.offset(), kAhead);
  // A slower one is told by the faster.
  wire = clock.Observe(kNow, kNow + kAhead + absl::Microseconds(70),
                       absl::ZeroDuration(), kNow + absl::Microseconds(1070));
  EXPECT_EQ(wire.out, absl::Microseconds(70));
  EXPECT_EQ(wire.back, absl::Milliseconds(1));
}

TEST(ClockOffsetTest, FollowsAClockThatDrifts) {
  ClockOffset clock;
  std::mt19937 random(3);
  std::exponential_distribution<double> delay(1.0 / 30e-6);
  absl::Duration ahead = absl::Seconds(-7);
  absl::Time now = kNow;
  double worst = 0;
  for (int i = 0; i < 100'000; ++i) {
    ahead += absl::Nanoseconds(10);  // 10 us a second
    const absl::Duration out =
        absl::Microseconds(40) + absl::Seconds(delay(random));
    const absl::Duration back =
        absl::Microseconds(40) + absl::Seconds(delay(random));
    clock.Observe(now, now + ahead + out, absl::Microseconds(500),
                  now + out + absl::Microseconds(500) + back);
    now += absl::Milliseconds(1);
    if (i > 1000) {
      worst = std::max(worst, absl::ToDoubleMicroseconds(
                                  absl::AbsDuration(clock.offset() - ahead)));
    }
  }
  EXPECT_LT(worst, 60);  // of a drift of 1,000 in all
}

TEST(ClockOffsetTest, NothingIsNegativeWhateverThePeerSays) {
  for (const absl::Time received :
       {absl::UnixEpoch(), kNow, kNow + absl::Hours(1000000)}) {
    ClockOffset clock;
    for (int i = 0; i < 3; ++i) {
      const ClockOffset::Wire wire = clock.Observe(
          kNow, received, absl::Seconds(i), kNow + absl::Milliseconds(1500));
      EXPECT_GE(wire.out, absl::ZeroDuration());
      EXPECT_GE(wire.back, absl::ZeroDuration());
      EXPECT_LE(wire.out + wire.back, absl::Milliseconds(1500));
    }
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
