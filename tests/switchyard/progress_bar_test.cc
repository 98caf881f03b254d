#include "switchyard/progress/progress_bar.h"

#include <algorithm>
#include <sstream>
#include <string>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_clock.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kGB = 1'000'000'000;

TEST(ProgressBar, RateAndTimeLeftCountFromThisRun) {
  testing::FakeClock clock;
  std::ostringstream out;
  {
    ProgressBar bar({.doing = "converting",
                     .out = &out,
                     .terminal = true,
                     .clock = &clock});
    bar.Report(4 * kGB, 10 * kGB);  // an earlier run's
    EXPECT_EQ(out.str(), "");
    clock.Advance(absl::Seconds(10));
    bar.Report(5 * kGB, 10 * kGB);
    EXPECT_THAT(out.str(), HasSubstr("converting [############............]"));
    EXPECT_THAT(out.str(), HasSubstr(" 50%  5.00 of 10.00 GB"));
    EXPECT_THAT(out.str(), HasSubstr("100 MB/s  0:50 left"));
    // Not more often than the eye can follow.
    const std::string before = out.str();
    clock.Advance(absl::Milliseconds(50));
    bar.Report(6 * kGB, 10 * kGB);
    EXPECT_EQ(out.str(), before);
    // But the end is shown, over the line that was there.
    bar.Report(10 * kGB, 10 * kGB);
    EXPECT_THAT(out.str(),
                HasSubstr("\rconverting [########################]"));
    EXPECT_THAT(out.str(), HasSubstr("0:00 left"));
    EXPECT_THAT(out.str(), Not(HasSubstr("\n")));
  }
  EXPECT_EQ(out.str().back(), '\n');
}

TEST(ProgressBar, LinesWithoutATerminal) {
  testing::FakeClock clock;
  std::ostringstream out;
  ProgressBar bar(
      {.doing = "verifying", .out = &out, .terminal = false, .clock = &clock});
  bar.Report(0, 8 * 3600 * kGB);
  for (int second = 1; second <= 20; ++second) {
    clock.Advance(absl::Seconds(1));
    bar.Report(second * kGB, 8 * 3600 * kGB);
  }
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);
  EXPECT_THAT(text, HasSubstr("1000 MB/s  7:59:59 left"));
  EXPECT_THAT(text, Not(HasSubstr("\r")));
}

TEST(ProgressBar, WhatIsQuickIsQuiet) {
  testing::FakeClock clock;
  std::ostringstream out;
  {
    ProgressBar bar(
        {.doing = "x", .out = &out, .terminal = true, .clock = &clock});
    bar.Report(0, 0);
    clock.Advance(absl::Milliseconds(400));
    bar.Report(kGB, kGB);
  }
  EXPECT_EQ(out.str(), "");
}

}  // namespace
}  // namespace switchyard
