#include "text/pre_tokenizer.h"

#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"
#include "tests/text/test_files.h"
#include "text/utf8.h"

namespace switchyard::text {
namespace {

using ::switchyard::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Split(const PreTokenizer& pre_tokenizer,
                               absl::string_view text,
                               int64_t* steps = nullptr) {
  std::vector<std::string> words;
  int64_t ignored = 0;
  pre_tokenizer.Split(
      text, [&](absl::string_view word) { words.emplace_back(word); },
      steps != nullptr ? steps : &ignored);
  return words;
}

std::vector<std::string> QwenSplit(absl::string_view text) {
  return Split(**PreTokenizer::Create(kQwenExpression), text);
}

TEST(PreTokenizerTest, SplitsLikeTheExpression) {
  EXPECT_THAT(QwenSplit(" hello"), ElementsAre(" hello"));
  EXPECT_THAT(QwenSplit("  hello"), ElementsAre(" ", " hello"));
  EXPECT_THAT(QwenSplit("a\n b"), ElementsAre("a", "\n", " b"));
  EXPECT_THAT(QwenSplit("I'm he'LL 'x"),
              ElementsAre("I", "'m", " he", "'LL", " '", "x"));
  EXPECT_THAT(QwenSplit("it'\xC5\xBF"), ElementsAre("it", "'\xC5\xBF"));
  EXPECT_THAT(QwenSplit("a12 3"), ElementsAre("a", "1", "2", " ", "3"));
  EXPECT_THAT(QwenSplit(" ++\r\n\nx"), ElementsAre(" ++\r\n\n", "x"));
  EXPECT_THAT(QwenSplit("x \t\n  \n  y"),
              ElementsAre("x", " \t\n  \n", " ", " y"));
  EXPECT_THAT(QwenSplit("x   "), ElementsAre("x", "   "));
  EXPECT_THAT(QwenSplit("\t\tx"), ElementsAre("\t", "\tx"));
  EXPECT_THAT(QwenSplit(""), ElementsAre());
}

// U+180E is no white space since Unicode 6.3, and U+0085 is.
TEST(PreTokenizerTest, HasCurrentWhiteSpace) {
  EXPECT_THAT(QwenSplit("1\xE1\xA0\x8E"
                        "1"),
              ElementsAre("1", "\xE1\xA0\x8E", "1"));
  EXPECT_THAT(QwenSplit(" \xE1\xA0\x8E"), ElementsAre(" \xE1\xA0\x8E"));
  EXPECT_THAT(QwenSplit("\xC2\x85 1"), ElementsAre("\xC2\x85", " ", "1"));
}

// U+1DF25 is a letter since Unicode 15.0, U+11F50 a digit.
TEST(PreTokenizerTest, HasLettersOfUnicode15) {
  EXPECT_THAT(QwenSplit("+\xF0\x9D\xBC\xA5+"),
              ElementsAre("+\xF0\x9D\xBC\xA5", "+"));
  EXPECT_THAT(QwenSplit("\xF0\x91\xBD\x90\xF0\x91\xBD\x90"),
              ElementsAre("\xF0\x91\xBD\x90", "\xF0\x91\xBD\x90"));
}

TEST(PreTokenizerTest, ScannerEqualsPcre2WhereTheirDataAgree) {
  const auto scanner = PreTokenizer::Create(kQwenExpression);
  const auto pcre2 = PreTokenizer::CreateWithPcre2(kQwenExpression);
  ASSERT_TRUE(scanner.ok() && pcre2.ok());
  const std::vector<std::string> alphabet = {"a",
                                             "B",
                                             "s",
                                             "'",
                                             "'re",
                                             "'Ll",
                                             "1",
                                             "9",
                                             " ",
                                             "  ",
                                             "\t",
                                             "\n",
                                             "\r",
                                             ".",
                                             "+",
                                             "<",
                                             "\xC2\xA0",
                                             "é",
                                             "日",
                                             "\xE3\x80\x80",
                                             "²",
                                             "Ⅷ",
                                             "😀",
                                             "\xCC\x81",
                                             "ſ",
                                             "\v",
                                             "\x1F",
                                             "\xE2\x80\x8D",
                                             "\xE2\x80\xA8",
                                             "K",
                                             "_"};
  std::mt19937 random(2);
  for (int round = 0; round < 20000; ++round) {
    const std::string text =
        RandomText(alphabet, static_cast<int>(random() % 14), &random);
    ASSERT_EQ(Split(**scanner, text), Split(**pcre2, text)) << text;
  }
}

TEST(PreTokenizerTest, AnotherExpressionGoesToPcre2) {
  const auto digits = PreTokenizer::Create("\\p{N}{1,3}");
  ASSERT_TRUE(digits.ok());
  EXPECT_THAT(Split(**digits, "ab12345c"), ElementsAre("ab", "123", "45", "c"));
  // A match that is empty, or that begins before its search, still makes
  // progress.
  const auto odd = PreTokenizer::Create("x*|(?=y)\\K");
  ASSERT_TRUE(odd.ok());
  EXPECT_THAT(Split(**odd, "ayxxb"), ElementsAre("ay", "xx", "b"));
}

TEST(PreTokenizerTest, ABadExpressionIsNamed) {
  EXPECT_THAT(PreTokenizer::Create("a(b"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("at byte 3: missing closing parenthesis")));
}

TEST(PreTokenizerTest, TenMegabytesOfOneClassCostLinearWork) {
  const auto scanner = PreTokenizer::Create(kQwenExpression);
  ASSERT_TRUE(scanner.ok());
  constexpr int64_t kBytes = 10 << 20;
  for (const char c : {' ', 'a', '\n', '.', '1', '\''}) {
    const std::string run(kBytes, c);
    for (const std::string& text : {run, run + "x", "\n" + run + "\n1"}) {
      int64_t steps = 0;
      Split(**scanner, text, &steps);
      EXPECT_LE(steps, 3 * static_cast<int64_t>(text.size())) << c;
    }
  }
}

TEST(PreTokenizerTest, Pcre2SurvivesTenMegabytesOfOneClass) {
  const auto pcre2 = PreTokenizer::CreateWithPcre2(kQwenExpression);
  ASSERT_TRUE(pcre2.ok());
  const std::string spaces(10 << 20, ' ');
  EXPECT_THAT(Split(**pcre2, spaces), ElementsAre(spaces));
  EXPECT_THAT(Split(**pcre2, spaces + "x"),
              ElementsAre(spaces.substr(1), " x"));
  const std::string letters(10 << 20, 'a');
  EXPECT_THAT(Split(**pcre2, letters), ElementsAre(letters));
}

}  // namespace
}  // namespace switchyard::text
