#include "router/text/stop_matcher.h"

#include <random>

#include "gtest/gtest.h"
#include "tests/text/test_files.h"

namespace switchyard::router {
namespace {

struct Outcome {
  std::string text;
  std::string matched;
  bool operator==(const Outcome&) const = default;
};
void PrintTo(const Outcome& outcome, std::ostream* os) {
  *os << "\"" << outcome.text << "\" stopped by \"" << outcome.matched << "\"";
}

Outcome Feed(const std::vector<std::string>& stop,
             const std::vector<std::string>& pieces,
             const std::vector<std::string>& expressions = {}) {
  StopMatcher::Expressions compiled;
  for (const std::string& expression : expressions) {
    compiled.push_back(*text::Regex::Compile(expression));
  }
  StopMatcher matcher(stop, compiled);
  std::string out;
  for (const std::string& piece : pieces) out += matcher.Add(piece);
  out += matcher.Flush();
  EXPECT_EQ(matcher.stopped(), !matcher.matched().empty());
  return {out, matcher.matched()};
}

TEST(StopMatcherTest, WithoutStringsEverythingPasses) {
  StopMatcher matcher({"", ""});
  EXPECT_EQ(matcher.Add("abc"), "abc");
  EXPECT_EQ(matcher.Flush(), "");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcherTest, AStringAcrossPieces) {
  StopMatcher matcher({"STOP"});
  EXPECT_EQ(matcher.Add("a ST"), "a ");
  EXPECT_EQ(matcher.Add("O"), "");
  EXPECT_EQ(matcher.Add("P and more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.matched(), "STOP");
  EXPECT_EQ(matcher.Add("later"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, WhatWasHeldBackComesAfterAll) {
  StopMatcher matcher({"STOP"});
  EXPECT_EQ(matcher.Add("ST"), "");
  EXPECT_EQ(matcher.Add("ST"), "ST");
  EXPECT_EQ(matcher.Flush(), "ST");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcherTest, HoldsBackNoMoreThanMayBecomeAString) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.Add("aaaa"), "aa");
  EXPECT_EQ(matcher.Add("b"), "");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcherTest, TheFirstCompleteStringCounts) {
  EXPECT_EQ(Feed({"cd", "bcd", "abcde"}, {"xabcdefg"}), (Outcome{"xa", "bcd"}));
  EXPECT_EQ(Feed({"\n\n", "\n"}, {"a\n\nb"}), (Outcome{"a", "\n"}));
}

TEST(StopMatcherTest, TheResultDoesNotDependOnCuts) {
  std::mt19937 random(3);
  const std::vector<std::string> alphabet = {"a", "b", "ab", "\n"};
  int stopped = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stop;
    for (int i = 0; i < 3; ++i) {
      stop.push_back(
          text::RandomText(alphabet, static_cast<int>(random() % 5), &random));
    }
    const std::string text = text::RandomText(alphabet, 30, &random);
    // The definition: the match with the smallest end, then the longest.
    size_t best_end = std::string::npos;
    std::string best;
    for (const std::string& word : stop) {
      const size_t begin = word.empty() ? std::string::npos : text.find(word);
      if (begin == std::string::npos) continue;
      const size_t end = begin + word.size();
      if (end < best_end || (end == best_end && word.size() > best.size())) {
        best_end = end;
        best = word;
      }
    }
    const Outcome expected = {
        best.empty() ? text : text.substr(0, best_end - best.size()), best};
    if (!best.empty()) ++stopped;
    ASSERT_EQ(Feed(stop, {text}), expected);
    ASSERT_EQ(Feed(stop, text::RandomPieces(text, 4, &random)), expected);
  }
  EXPECT_GT(stopped, 1000);
  EXPECT_LT(stopped, 4990);
}

TEST(StopMatcherTest, AnExpressionIsHeldBackWhileItMayMatch) {
  StopMatcher matcher({}, {*text::Regex::Compile("\\nQ[0-9]+:")});
  EXPECT_EQ(matcher.Add("a\n"), "a");
  EXPECT_EQ(matcher.Add("Q1"), "");
  EXPECT_EQ(matcher.Add("x\nQ"), "\nQ1x");
  EXPECT_EQ(matcher.Add("17: what"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.matched(), "\\nQ[0-9]+:");
  EXPECT_EQ(matcher.matched_text(), "\nQ17:");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, StringsAndExpressionsAreOneSet) {
  EXPECT_EQ(Feed({"cd"}, {"abcdef"}, {"b.*f", "d.?"}), (Outcome{"ab", "cd"}));
  EXPECT_EQ(Feed({"cd"}, {"abcdef"}, {"b.*d"}), (Outcome{"a", "b.*d"}));
  EXPECT_EQ(Feed({"ef"}, {"abcdef"}, {"[c-d]"}), (Outcome{"ab", "[c-d]"}));
}

TEST(StopMatcherTest, ExpressionsDoNotDependOnCutsEither) {
  std::mt19937 random(5);
  const std::vector<std::string> expressions = {
      "a+b\\n", "(ab)+a", "b.{2,4}b", "é.*b", "(?<=a)\\n(?=b)", "bb?a|\\na"};
  int stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::string text =
        text::RandomText({"a", "b", "é", "ab", "\n"}, 12, &random);
    const std::vector<std::string> stop = {"bab"};
    const std::vector<std::string> some = {
        expressions[random() % expressions.size()],
        expressions[random() % expressions.size()]};
    std::vector<std::string> characters;
    for (size_t i = 0; i < text.size(); ++i) {
      if ((static_cast<uint8_t>(text[i]) & 0xC0) != 0x80)
        characters.push_back({});
      characters.back() += text[i];
    }
    const Outcome expected = Feed(stop, characters, some);
    if (!expected.matched.empty()) ++stopped;
    ASSERT_EQ(Feed(stop, {text}, some), expected) << text;
    ASSERT_EQ(expected.text, text.substr(0, expected.text.size()));
  }
  EXPECT_GT(stopped, 500);
  EXPECT_LT(stopped, 2900);
}

TEST(StopMatcherTest, AnExpressionThatTakesTooLongIsAnError) {
  StopMatcher matcher({}, {*text::Regex::Compile("(a+)+b")});
  for (int i = 0; i < 100 && matcher.status().ok(); ++i) matcher.Add("aaaa");
  EXPECT_EQ(matcher.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.Add("b"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

}  // namespace
}  // namespace switchyard::router
