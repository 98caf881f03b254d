#include "grammar/matcher.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/grammar/grammar_test_util.h"
#include "tests/testing/matchers.h"

namespace switchyard::grammar {
namespace {

std::vector<uint64_t> MaskOf(Matcher* matcher) {
  std::vector<uint64_t> mask(
      static_cast<size_t>(matcher->vocabulary().mask_words()));
  matcher->FillMask(absl::MakeSpan(mask));
  return mask;
}

TEST(MatcherTest, KnowsWhereTheTextMayAndMustEnd) {
  const auto grammar = Compile(GrammarKind::kRegex, "a|a?b");
  ASSERT_THAT(grammar, testing::IsOk());
  Matcher matcher(*grammar);
  EXPECT_FALSE(matcher.can_end());
  EXPECT_FALSE(matcher.must_end());
  EXPECT_FALSE(matcher.Accept("c"));
  ASSERT_TRUE(matcher.Accept("a"));
  EXPECT_TRUE(matcher.can_end());
  EXPECT_FALSE(matcher.must_end());
  ASSERT_TRUE(matcher.Accept("b"));
  EXPECT_TRUE(matcher.can_end());
  EXPECT_TRUE(matcher.must_end());
  const std::vector<uint64_t> mask = MaskOf(&matcher);
  EXPECT_TRUE(std::all_of(mask.begin(), mask.end(),
                          [](uint64_t word) { return word == 0; }));
}

TEST(MatcherTest, TrialsAreTakenBack) {
  const auto grammar = Compile(GrammarKind::kJsonSchema, "true");
  ASSERT_THAT(grammar, testing::IsOk());
  Matcher matcher(*grammar);
  ASSERT_TRUE(matcher.Accept("[1"));
  const std::vector<uint64_t> before = MaskOf(&matcher);
  matcher.BeginTrial();
  ASSERT_TRUE(matcher.Accept(", {\"a\": [[]]"));
  EXPECT_NE(MaskOf(&matcher), before);
  matcher.EndTrial();
  EXPECT_EQ(MaskOf(&matcher), before);
  ASSERT_TRUE(matcher.Accept("]"));
  EXPECT_TRUE(matcher.can_end());
}

TEST(MatcherTest, CopiesGoTheirOwnWays) {
  const auto grammar = Compile(GrammarKind::kRegex, "(ab|ac)*");
  ASSERT_THAT(grammar, testing::IsOk());
  Matcher one(*grammar);
  ASSERT_TRUE(one.Accept("a"));
  Matcher other = one;
  ASSERT_TRUE(one.Accept("b"));
  EXPECT_TRUE(one.can_end());
  EXPECT_FALSE(other.can_end());
  ASSERT_TRUE(other.Accept("c"));
  EXPECT_TRUE(other.can_end());
}

TEST(MatcherTest, LeadingNewlines) {
  const auto grammar = CompileGrammar(
      GrammarKind::kJsonSchema, R"({"type": "null"})", 2, TestVocabulary());
  ASSERT_THAT(grammar, testing::IsOk());
  for (const char* text : {"null", "\nnull", "\n\nnull"}) {
    EXPECT_TRUE(Matches(*grammar, text)) << text;
  }
  EXPECT_FALSE(Matches(*grammar, "\n\n\nnull"));
  EXPECT_FALSE(Matches(*grammar, "null\n"));
}

// What was forgotten in between changes nothing: long texts of ever new states.
TEST(MatcherTest, LongTextsInCountedStates) {
  std::mt19937 random(5);
  const auto grammar = Compile(
      GrammarKind::kJsonSchema,
      R"({"type": "array", "items": {"type": "string", "maxLength": 300},
          "minItems": 50, "maxItems": 400})");
  ASSERT_THAT(grammar, testing::IsOk());
  Matcher matcher(*grammar);
  std::string text = "[";
  for (int i = 0; i < 60; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", "\"",
                    std::string(random() % 301, 'a'), "\"");
  }
  text += "]";
  absl::string_view rest = text;
  int steps = 0;
  while (!rest.empty()) {
    const absl::string_view piece = rest.substr(0, 1 + random() % 20);
    ASSERT_TRUE(matcher.Accept(piece)) << text.size() - rest.size();
    rest.remove_prefix(piece.size());
    if (++steps % 64 != 0) continue;
    // By a matcher that has seen nothing else.
    Matcher fresh(*grammar);
    ASSERT_TRUE(fresh.Accept(
        absl::string_view(text).substr(0, text.size() - rest.size())));
    ASSERT_EQ(MaskOf(&matcher), MaskOf(&fresh));
  }
  EXPECT_TRUE(matcher.can_end());
}

// Masks of states that share one, at the places where counts run out.
TEST(MatcherTest, MasksNearTheEndOfACount) {
  std::mt19937 random(6);
  for (const int length : {0, 1, 23, 24, 25, 60, 120}) {
    const auto grammar = Compile(
        GrammarKind::kJsonSchema,
        absl::StrCat(R"({"type": "string", "maxLength": )", length, "}"));
    ASSERT_THAT(grammar, testing::IsOk());
    EXPECT_TRUE(MatchesInTokens(
        *grammar, absl::StrCat("\"", std::string(length, 'b'), "\""), &random));
    EXPECT_FALSE(MatchesInTokens(
        *grammar, absl::StrCat("\"", std::string(length + 1, 'b'), "\""),
        &random));
    ASSERT_FALSE(HasFailure());
  }
}

}  // namespace
}  // namespace switchyard::grammar
