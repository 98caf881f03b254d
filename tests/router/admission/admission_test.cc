#include "router/admission/admission.h"

#include <thread>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::router {
namespace {

using switchyard::testing::StatusIs;
using ::testing::HasSubstr;

TEST(AdmissionTest, CountsAndBoundsOpenRequests) {
  Admission admission(2);
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
  Admission admission(2);
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

}  // namespace
}  // namespace switchyard::router
