#include "metrics/series_lease.h"

#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_clock.h"

namespace switchyard::metrics {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::Duration kAfter = absl::Minutes(10);

// Somebody who counts for a worker.
struct User {
  User(Registry* registry, const std::string& worker)
      : lease(LeaseSeries(registry, "worker", worker)),
        calls(registry->AddCounter("calls_total", "Calls.",
                                   {{"worker", worker}})),
        state(registry->AddGauge("state", "State.",
                                 {{"state", "up"}, {"worker", worker}})),
        seconds(registry->AddHistogram("seconds", "Seconds.", {1, 2},
                                       {{"worker", worker}})) {}
  SeriesLease lease;
  Counter* calls;
  Gauge* state;
  Histogram* seconds;
};

class SeriesLeaseTest : public ::testing::Test {
 protected:
  SeriesLeaseTest() { ForgetUnleasedSeries(registry_.get(), &clock_, kAfter); }
  testing::FakeClock clock_;
  const std::unique_ptr<Registry> registry_ = Registry::Create();
};

TEST_F(SeriesLeaseTest, WhatNobodyUsesIsForgottenInTime) {
  auto a = std::make_unique<User>(registry_.get(), "a");
  const User b(registry_.get(), "b");
  Counter* const without_lease =
      registry_->AddCounter("others_total", "Others.", {{"peer", "a"}});
  a->calls->Increment();
  a->state->Set(1);
  a->seconds->Observe(1);
  clock_.Advance(2 * kAfter);
  EXPECT_THAT(registry_->Expose(), HasSubstr(R"(calls_total{worker="a"} 1)"));
  a.reset();
  clock_.Advance(kAfter - absl::Seconds(1));
  EXPECT_THAT(registry_->Expose(),
              AllOf(HasSubstr(R"(calls_total{worker="a"} 1)"),
                    HasSubstr(R"(state{state="up",worker="a"} 1)"),
                    HasSubstr(R"(seconds_count{worker="a"} 1)")));
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(registry_->Expose(),
              AllOf(Not(HasSubstr(R"(worker="a")")),
                    HasSubstr(R"(calls_total{worker="b"} 0)"),
                    HasSubstr(R"(state{state="up",worker="b"})"),
                    HasSubstr(R"(others_total{peer="a"} 0)")));
  without_lease->Increment();
  b.calls->Increment();
  EXPECT_THAT(registry_->Expose(), HasSubstr(R"(calls_total{worker="b"} 1)"));
}

TEST_F(SeriesLeaseTest, WhoComesBackInTimeCountsOn) {
  auto user = std::make_unique<User>(registry_.get(), "a");
  user->calls->Increment();
  user.reset();
  clock_.Advance(kAfter - absl::Seconds(1));
  user = std::make_unique<User>(registry_.get(), "a");
  clock_.Advance(kAfter);
  user->calls->Increment();
  EXPECT_THAT(registry_->Expose(), HasSubstr(R"(calls_total{worker="a"} 2)"));
  // Too late, though nobody looked meanwhile.
  user.reset();
  clock_.Advance(kAfter);
  user = std::make_unique<User>(registry_.get(), "a");
  EXPECT_THAT(registry_->Expose(), HasSubstr(R"(calls_total{worker="a"} 0)"));
}

TEST_F(SeriesLeaseTest, TheLastOfSeveralCounts) {
  auto one = std::make_unique<User>(registry_.get(), "a");
  auto other = std::make_unique<User>(*one);  // shares the lease
  auto third = std::make_unique<User>(registry_.get(), "a");
  one.reset();
  third.reset();
  clock_.Advance(2 * kAfter);
  EXPECT_THAT(registry_->Expose(), HasSubstr(R"(worker="a")"));
  other->calls->Increment();
  other.reset();
  clock_.Advance(kAfter);
  EXPECT_THAT(registry_->Expose(), Not(HasSubstr(R"(worker="a")")));
}

// A thousand pods, each under an address of its own.
TEST_F(SeriesLeaseTest, AddressesThatComeAndGoDoNotAddUp) {
  for (int i = 0; i < 1000; ++i) {
    const User user(registry_.get(), absl::StrCat("10.0.0.", i));
    clock_.Advance(absl::Minutes(1));
  }
  const std::string text = registry_->Expose();
  int series = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    series += absl::StrContains(line, "calls_total{") ? 1 : 0;
  }
  EXPECT_EQ(series, 10);
}

TEST_F(SeriesLeaseTest, ALeaseMayBeTheLastToGo) {
  auto registry = Registry::Create();
  SeriesLease lease;
  {
    const testing::FakeClock clock;
    ForgetUnleasedSeries(registry.get(), &clock, kAfter);
    lease = LeaseSeries(registry.get(), "worker", "a");
    registry.reset();
  }
  lease.reset();
}

TEST(UnforgettingRegistryTest, KeepsEverything) {
  const auto registry = Registry::Create();
  { const User user(registry.get(), "a"); }
  EXPECT_THAT(registry->Expose(), HasSubstr(R"(worker="a")"));
}

}  // namespace
}  // namespace switchyard::metrics
