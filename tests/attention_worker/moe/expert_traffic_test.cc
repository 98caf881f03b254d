#include "attention_worker/moe/expert_traffic.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_clock.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::SizeIs;

constexpr absl::Duration kAfter = absl::Minutes(10);

ExpertTraffic Calls(int64_t calls) {
  ExpertTraffic traffic;
  traffic.calls = calls;
  traffic.rows = 10 * calls;
  traffic.queue = absl::Seconds(calls);
  return traffic;
}

TEST(ExpertTrafficTest, DifferencesAreOfWhoGotSomething) {
  ExpertTrafficMeter meter;
  meter.Add("a", Calls(1));
  meter.Add("b", Calls(1));
  const ExpertTraffics before = meter.Read();
  meter.Add("a", Calls(2));
  const ExpertTraffics difference = Difference(before, meter.Read());
  ASSERT_THAT(difference, SizeIs(1));
  EXPECT_EQ(difference.at("a").calls, 2);
  EXPECT_EQ(difference.at("a").rows, 20);
  EXPECT_EQ(difference.at("a").queue, absl::Seconds(2));
}

TEST(ExpertTrafficTest, WorkersThatAreGoneAreForgotten) {
  testing::FakeClock clock;
  ExpertTrafficMeter meter(&clock, kAfter);
  for (int i = 0; i < 1000; ++i) {
    meter.Add(absl::StrCat("10.0.0.", i), Calls(1));
    meter.Add("stays", Calls(1));
    clock.Advance(absl::Minutes(1));
  }
  EXPECT_THAT(meter.Read(), SizeIs(11));
  EXPECT_EQ(meter.Read().at("stays").calls, 1000);
}

TEST(ExpertTrafficTest, OneThatWasForgottenBeginsAnew) {
  testing::FakeClock clock;
  ExpertTrafficMeter meter(&clock, kAfter);
  meter.Add("a", Calls(5));
  const ExpertTraffics before = meter.Read();
  clock.Advance(kAfter);
  meter.Add("b", Calls(1));
  meter.Add("a", Calls(5));
  EXPECT_EQ(meter.Read().at("a").calls, 5);
  EXPECT_EQ(Difference(before, meter.Read()).at("a").calls, 5);
}

}  // namespace
}  // namespace switchyard::attention_worker
