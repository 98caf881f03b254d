#include "router/text/json_scanner.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gtest/gtest.h"
#include "tests/text/test_files.h"

namespace switchyard::router {
namespace {

using Mode = JsonScanner::Mode;
using Result = JsonScanner::Result;

// Is `text` one JSON value, by the scanner?
bool Accepts(Mode mode, absl::string_view text, std::string* out) {
  JsonScanner scanner(mode);
  for (size_t i = 0; i < text.size(); ++i) {
    switch (scanner.Push(text[i], out)) {
      case Result::kMore:
        break;
      case Result::kDone:
        return i + 1 == text.size();
      case Result::kDoneBefore:
      case Result::kError:
        return false;
    }
  }
  return scanner.Push(' ', out) == Result::kDoneBefore;
}

const std::vector<std::string>& Alphabet() {
  static const auto* const alphabet = new std::vector<std::string>{
      "{",       "}",      "[",    "]",     ",",    ":",       "\"",
      "\"a\"",   "\"k\":", "true", "false", "null", "0",       "1",
      "-",       ".",      "e",    "+",     "\\n",  "\\u00e9", "\\ud83d\\ude00",
      "\\ud83d", "\\x",    "\n",   " ",     "é",    "12"};
  return *alphabet;
}

TEST(JsonScannerTest, StrictAcceptsWhatTheParserAccepts) {
  std::mt19937 random(9);
  int accepted = 0;
  for (int round = 0; round < 200'000; ++round) {
    const std::string text = text::RandomText(
        Alphabet(), 1 + static_cast<int>(random() % 6), &random);
    if (text.back() == ' ' || text.back() == '\n') continue;
    std::string out;
    const bool ok = Accepts(Mode::kStrict, text, &out);
    ASSERT_EQ(ok, ParseJson(text).ok()) << text;
    if (!ok) continue;
    ++accepted;
    ASSERT_EQ(out, text) << "nothing is changed or left out";
  }
  EXPECT_GT(accepted, 2000);
}

TEST(JsonScannerTest, RepairCanBeClosedAnywhere) {
  std::mt19937 random(10);
  int closed = 0;
  for (int round = 0; round < 100'000; ++round) {
    const std::string text = absl::StrCat(
        "{",
        text::RandomText(Alphabet(), static_cast<int>(random() % 12), &random));
    JsonScanner scanner(Mode::kRepair);
    std::string out;
    Result result = Result::kMore;
    for (size_t i = 0; i < text.size() && result == Result::kMore; ++i) {
      result = scanner.Push(text[i], &out);
    }
    if (result != Result::kDone) {
      scanner.Close(&out);
      ++closed;
    }
    const auto value = ParseJson(out);
    ASSERT_TRUE(value.ok() && value->is_object())
        << out << " of " << text << ": " << value.status();
  }
  EXPECT_GT(closed, 10'000);
}

TEST(JsonScannerTest, RepairLeavesValidTextAsItIs) {
  const std::string text =
      "{\"a\": [1, -2.5e+3, {}, [ ], null], \"\\\"k\": \"\\ud83d\\ude00\\/é\"}";
  std::string out;
  EXPECT_TRUE(Accepts(Mode::kRepair, text, &out));
  EXPECT_EQ(out, text);
}

TEST(JsonScannerTest, DepthIsBounded) {
  for (const Mode mode : {Mode::kStrict, Mode::kRepair}) {
    JsonScanner scanner(mode);
    std::string out;
    int depth = 0;
    while (scanner.Push('[', &out) == Result::kMore) ++depth;
    EXPECT_EQ(depth, 100);
  }
}

}  // namespace
}  // namespace switchyard::router
