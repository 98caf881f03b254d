#include "base/log_settings.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

using ::testing::MatchesRegex;

class LogFormatTest : public ::testing::Test {
 protected:
  ~LogFormatTest() override { SetLogFormat(LogFormat::kText); }
  static std::string Logged(LogLevel level, absl::string_view text) {
    ::testing::internal::CaptureStderr();
    Log(level, text);
    return ::testing::internal::GetCapturedStderr();
  }
};

TEST_F(LogFormatTest, AnObjectForMachines) {
  SetLogFormat(LogFormat::kJson);
  // Quotes, a line break, and half a character.
  const std::string line =
      Logged(LogLevel::kError, absl::StrCat("say \"no\"\n", "\xc3", "!"));
  ASSERT_EQ(line.find('\n'), line.size() - 1);
  const auto json = ParseJson(line);
  ASSERT_TRUE(json.ok()) << line;
  EXPECT_EQ((*json)["level"], "error");
  EXPECT_EQ((*json)["message"], "say \"no\"\n\xef\xbf\xbd!");
  EXPECT_THAT((*json)["time"].get<std::string>(),
              MatchesRegex("[0-9-]+T[0-9:.]+Z"));
  EXPECT_NE((*json)["thread"], "");
}

}  // namespace
}  // namespace switchyard
