#include "router/admission/admission.h"

#include <cstdint>
#include <memory>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/matchers.h"

namespace switchyard::router {
namespace {

using switchyard::testing::StatusIs;
using ::testing::HasSubstr;

TEST(AdmissionTest, CountsAndBoundsOpenRequests) {
  Admission admission({.max_open = 2, .now = absl::Now});
  auto first = admission.Admit();
  auto second = admission.Admit();
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(admission.waiting(), 2);
  EXPECT_THAT(admission.Admit(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("2")));
  (*first)->SetRunning();
  (*first)->SetRunning();  // once is enough
  EXPECT_EQ(admission.waiting(), 1);
  EXPECT_EQ(admission.running(), 1);
  (*first).reset();
  EXPECT_EQ(admission.running(), 0);
  EXPECT_TRUE(admission.Admit().ok());
}

TEST(AdmissionTest, ClosedAdmitsNobodyAndWaitsForTheRest) {
  Admission admission({.max_open = 2, .now = absl::Now});
  auto ticket = admission.Admit();
  ASSERT_TRUE(ticket.ok());
  admission.Close();
  EXPECT_TRUE(admission.closed());
  EXPECT_THAT(admission.Admit(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(admission.WaitUntilIdle(absl::Now() + absl::Milliseconds(1)));
  std::thread last([&] { (*ticket).reset(); });
  EXPECT_TRUE(admission.WaitUntilIdle(absl::Now() + absl::Seconds(60)));
  last.join();
}

// 100 tokens a second, seen over ten seconds; then somebody waits.
class WaitingTokensTest : public ::testing::Test {
 protected:
  std::unique_ptr<Admission::Ticket> Wait(int64_t tokens) {
    auto ticket = admission_->Admit();
    EXPECT_TRUE(ticket.ok());
    last_ = (*ticket)->AwaitToken(tokens);
    return *std::move(ticket);
  }
  void Start(int64_t max_waiting_tokens, absl::Duration max_ttft) {
    admission_ = std::make_unique<Admission>(
        Admission::Options{.max_open = 100,
                           .max_waiting_tokens = max_waiting_tokens,
                           .max_ttft = max_ttft,
                           .now = [this] { return clock_.Now(); }});
    for (int i = 0; i < 10; ++i) {
      const auto ticket = Wait(100);
      clock_.Advance(absl::Seconds(1));
      ticket->SetRunning();
    }
  }

  switchyard::testing::FakeClock clock_;
  std::unique_ptr<Admission> admission_;
  Admission::Decision last_;
};

TEST_F(WaitingTokensTest, EstimatesByTheRateOfLate) {
  Start(0, absl::ZeroDuration());
  EXPECT_EQ(admission_->waiting_tokens(), 0);
  EXPECT_NEAR(absl::ToDoubleSeconds(*admission_->estimated_ttft()), 0, 1e-9);
  const auto first = Wait(500);
  const auto second = Wait(300);
  EXPECT_EQ(admission_->waiting_tokens(), 800);
  EXPECT_NEAR(absl::ToDoubleSeconds(*admission_->estimated_ttft()), 8, 0.2);
  // What is gone without a token says nothing of the rate.
  EXPECT_TRUE(last_.status.ok());
}

TEST_F(WaitingTokensTest, NothingIsKnownAtFirst) {
  Admission fresh(
      {.max_ttft = absl::Seconds(1), .now = [this] { return clock_.Now(); }});
  EXPECT_FALSE(fresh.estimated_ttft().has_value());
  const auto first = fresh.Admit();
  EXPECT_TRUE((*first)->AwaitToken(1'000'000).status.ok());
  const auto second = fresh.Admit();
  EXPECT_TRUE((*second)->AwaitToken(1'000'000).status.ok());
}

TEST_F(WaitingTokensTest, RefusesWhatWouldWaitTooLongAndSaysHowLong) {
  Start(0, absl::Seconds(5));
  const auto first = Wait(400);
  EXPECT_TRUE(last_.status.ok());
  const auto second = Wait(300);
  EXPECT_THAT(last_.status, StatusIs(absl::StatusCode::kResourceExhausted,
                                     HasSubstr("longer than 5s")));
  EXPECT_NEAR(absl::ToDoubleSeconds(last_.retry_after), 2, 0.3);
  EXPECT_EQ(admission_->waiting_tokens(), 400);
  Wait(50);
  EXPECT_TRUE(last_.status.ok());
  // However long a prompt is: if nobody waits it is read now or never.
  first->SetRunning();
  Wait(5000);
  EXPECT_TRUE(last_.status.ok());
}

TEST_F(WaitingTokensTest, BoundsTheTokensThatWait) {
  Start(1000, absl::ZeroDuration());
  auto large = Wait(5000);  // alone
  EXPECT_TRUE(last_.status.ok());
  Wait(1);
  EXPECT_THAT(last_.status, StatusIs(absl::StatusCode::kResourceExhausted,
                                     HasSubstr("--max-queued-tokens")));
  EXPECT_GT(last_.retry_after, absl::ZeroDuration());
  large.reset();
  const auto small = Wait(600);
  const auto other = Wait(400);
  EXPECT_TRUE(last_.status.ok());
  Wait(1);
  EXPECT_FALSE(last_.status.ok());
}

}  // namespace
}  // namespace switchyard::router
