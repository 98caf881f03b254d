#include "text/regex_search.h"

#include <algorithm>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/text/test_files.h"
#include "text/utf8.h"

namespace switchyard::text {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const Regex> Compiled(const std::string& expression) {
  auto regex = Regex::Compile(expression);
  EXPECT_TRUE(regex.ok()) << regex.status();
  return *std::move(regex);
}

struct Found {
  std::string before;  // of the match; all text if there is none
  std::string match;
  bool operator==(const Found&) const = default;
};
void PrintTo(const Found& found, std::ostream* os) {
  *os << "\"" << found.before << "\" and then \"" << found.match << "\"";
}

Found Search(RegexSearch* search, const std::string& text) {
  absl::string_view rest = text;
  std::string seen;
  while (!rest.empty()) {
    const auto length = static_cast<size_t>(DecodeUtf8(rest).length);
    seen.append(rest.data(), length);
    const absl::Status status = search->AddCharacter(rest.substr(0, length));
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) break;
    if (search->found()) {
      return {seen.substr(0, seen.size() - search->open_bytes()),
              std::string(search->match())};
    }
    rest.remove_prefix(length);
  }
  return {seen, ""};
}

Found Search(const std::string& expression, const std::string& text) {
  RegexSearch search(Compiled(expression));
  return Search(&search, text);
}

TEST(RegexSearchTest, FindsTheShortestBeginningWithAMatch) {
  EXPECT_EQ(Search("[0-9]+", "ab 123"), (Found{"ab ", "1"}));
  EXPECT_EQ(Search("abc|b", "xabc"), (Found{"xa", "b"}));
  EXPECT_EQ(Search("\\n\\s*\\n", "a\n \n\nb"), (Found{"a", "\n \n"}));
  EXPECT_EQ(Search("nothing", "of the kind"), (Found{"of the kind", ""}));
}

// std::regex backtracks like Perl too, and searches texts that don't grow.
TEST(RegexSearchTest, AgreesWithASearchOfEveryBeginning) {
  const std::vector<std::string> expressions = {
      "a+b",     "ab|b",    "(a|b)c",   "a.*b",     "a.*?bc", "(ab)+c",
      "b{2,3}a", "\\ba",    "c\\b",     "a(?=bc)",  "a(?!b)", "(a|b)\\1c",
      "^a",      "a*",      "(a*)(b*)", "[^a]{4}b", "a\\nb",  "(a|ab)(c|bc)",
      "b$",      "(?:)|bb", "c.c|ac.a", "\\s\\w\\s"};
  std::mt19937 random(11);
  int found = 0;
  for (int round = 0; round < 4000; ++round) {
    const std::string& expression = expressions[random() % expressions.size()];
    const std::string text =
        RandomText({"a", "b", "c", "ab", " ", "\n"}, 12, &random);
    const std::regex reference(expression);
    Found expected = {text, ""};
    for (size_t end = 1; end <= text.size(); ++end) {
      std::smatch match;
      const std::string beginning = text.substr(0, end);
      if (std::regex_search(beginning, match, reference,
                            std::regex_constants::match_not_null)) {
        expected = {match.prefix(), match.str()};
        break;
      }
    }
    if (!expected.match.empty()) ++found;
    ASSERT_EQ(Search(expression, text), expected)
        << expression << " in " << text;
  }
  EXPECT_GT(found, 1000);
  EXPECT_LT(found, 3900);
}

TEST(RegexSearchTest, NothingIsOpenWhereNoMatchCanBegin) {
  RegexSearch search(Compiled("ab+c"));
  const auto open_after = [&](const std::string& text) {
    Search(&search, text);
    return search.open_bytes();
  };
  EXPECT_EQ(open_after("xyz"), 0u);
  EXPECT_EQ(open_after("a"), 1u);
  EXPECT_EQ(open_after("bb"), 3u);
  EXPECT_EQ(open_after("a"), 1u);
  EXPECT_EQ(open_after("x"), 0u);
}

TEST(RegexSearchTest, CharactersAreUnicode) {
  EXPECT_EQ(Search("\\w\\d", "ä-é٣"), (Found{"ä-", "é٣"}));
  EXPECT_EQ(Search("(?i)ß.𝄞", "aSß𝄞𝄞"), (Found{"aS", "ß𝄞𝄞"}));
}

TEST(RegexSearchTest, LooksBehindWhateverWasDropped) {
  std::string text;
  for (int i = 0; i < 9000; ++i) text += "é";
  EXPECT_EQ(Search("(?<=éé)b|^b|\\Ab", text + "b").match, "b");
  // The text's begin is not where the kept text begins.
  EXPECT_EQ(Search("(?<=^é)b|(?<=\\Aé)b|^b", text + "b").match, "");
  EXPECT_EQ(Search("(?m)^b", text + "b\nb").match, "b");
  EXPECT_EQ(Search("\\bb", text + "b b"), (Found{text + "b ", "b"}));
}

TEST(RegexSearchTest, SaysWhereAnExpressionIsWrong) {
  const auto error = [](const std::string& expression) {
    const absl::Status status = Regex::Compile(expression).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << expression;
    return std::string(status.message());
  };
  EXPECT_THAT(error("ab(c"), HasSubstr("at byte 4: missing closing"));
  EXPECT_THAT(error("a\\C"), HasSubstr("\\C"));
  EXPECT_THAT(error(std::string(Regex::kMaxBytes + 1, 'a')),
              HasSubstr("at most 1024"));
  EXPECT_THAT(error("((a{999}){999}){999}"), HasSubstr("too large"));
}

absl::Status Exhaust(const std::string& expression, const std::string& text) {
  RegexSearch search(Compiled(expression));
  for (const char c : text) {
    const absl::Status status = search.AddCharacter({&c, 1});
    if (!status.ok() || search.found()) return status;
  }
  return absl::OkStatus();
}

TEST(RegexSearchTest, BoundsTimeAndMemory) {
  const std::string many(40'000, 'a');
  for (const char* steps : {"(a+)+b", "(a|aa)*b", "a*a*a*b", "((a*)*)*b",
                            "(.*)\\1{9}b", "(?=(a+))*\\1b", "(a(?1)?b?)c"}) {
    const absl::Status status = Exhaust(steps, many);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << steps;
    EXPECT_THAT(std::string(status.message()), HasSubstr(steps));
  }
  EXPECT_THAT(std::string(Exhaust("xa*+b", "x" + many).message()),
              HasSubstr("could all be the beginning of a match"));
  // Cheap ones may go on as long as they like.
  EXPECT_TRUE(Exhaust("a{30}b", many).ok());
  EXPECT_TRUE(Exhaust("b.*c|\\d+$|aab", many).ok());
  std::string lines;
  for (int i = 0; i < 400; ++i) lines += std::string(99, 'a') + "\n";
  EXPECT_TRUE(Exhaust(".*b", lines).ok());
}

}  // namespace
}  // namespace switchyard::text
