#include "tests/grammar/grammar_test_util.h"

#include <algorithm>

#include "base/check.h"

namespace switchyard::grammar {
namespace {

// More bytes than any text that these tests need.
constexpr size_t kMaxText = 4000;

std::vector<int32_t> AllowedTokens(Matcher* matcher) {
  std::vector<uint64_t> mask(
      static_cast<size_t>(matcher->vocabulary().mask_words()));
  matcher->FillMask(absl::MakeSpan(mask));
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < matcher->vocabulary().size(); ++id) {
    if ((mask[id >> 6] >> (id & 63) & 1) != 0) ids.push_back(id);
  }
  return ids;
}

// What brings a text to its end: closing things, rather than opening them.
int Ending(absl::string_view token) {
  int score = 0;
  for (const char c : token) {
    if (c == '}' || c == ']' || c == '"') score += 4;
    if (c == '{' || c == '[' || c == ',') score -= 4;
    if (c == ' ' || c == '\n' || c == '\\') score -= 1;
  }
  return score;
}

}  // namespace

std::shared_ptr<const Vocabulary> TestVocabulary() {
  static const auto* const vocabulary = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) {
      tokens.push_back(std::string(1, static_cast<char>(byte)));
    }
    for (const char* text : {"{\"",
                             "\": ",
                             "\":",
                             "\", \"",
                             "\"}",
                             "\"},",
                             "},",
                             "}}",
                             "]}",
                             "[]",
                             "{}",
                             "[[",
                             "]]",
                             "[{",
                             "}]",
                             "\",",
                             "\"",
                             "true",
                             "false",
                             "null",
                             "tr",
                             "nul",
                             " the",
                             "the",
                             "ing",
                             "name",
                             "name\"",
                             "\"name\"",
                             "name\": \"",
                             "12",
                             "123",
                             "0.",
                             ".5",
                             "-1",
                             "1e",
                             "\\n",
                             "\\\"",
                             "\\u00",
                             "\n",
                             "\n\n",
                             "\n  ",
                             "\n    ",
                             "  ",
                             "   ",
                             "é",
                             "日本",
                             "本語",
                             "\xE6\x97",
                             "\xA5",
                             "😀",
                             "\xF0\x9F",
                             "<tool_call>",
                             "</tool_call>",
                             "<tool",
                             "_call>",
                             "<function=",
                             "</parameter>",
                             "<parameter=",
                             ">\n",
                             "a",
                             "b",
                             "ab",
                             "abc",
                             "abcabc",
                             "aaaaaaaa",
                             "bbbbbbbbbbbbbbbbbbbbbbbb",
                             "internationalisation of everything",
                             "                                        "}) {
      tokens.push_back(text);
    }
    return new std::shared_ptr<const Vocabulary>(Vocabulary::Create(tokens));
  }();
  return *vocabulary;
}

absl::StatusOr<std::shared_ptr<const CompiledGrammar>> Compile(
    GrammarKind kind, const std::string& text) {
  return CompileGrammar(kind, text, 0, TestVocabulary());
}

bool Matches(const std::shared_ptr<const CompiledGrammar>& grammar,
             absl::string_view text) {
  Matcher matcher(grammar);
  return matcher.Accept(text) && matcher.can_end();
}

bool MatchesInTokens(const std::shared_ptr<const CompiledGrammar>& grammar,
                     absl::string_view text, std::mt19937* random) {
  Matcher matcher(grammar);
  while (!text.empty()) {
    const std::vector<int32_t> allowed = AllowedTokens(&matcher);
    std::vector<int32_t> fitting;
    for (int32_t id = 0; id < matcher.vocabulary().size(); ++id) {
      const bool in_mask =
          std::binary_search(allowed.begin(), allowed.end(), id);
      matcher.BeginTrial();
      SY_CHECK(matcher.AcceptToken(id) == in_mask);
      matcher.EndTrial();
      const absl::string_view bytes = matcher.vocabulary().bytes_of(id);
      if (in_mask && text.substr(0, bytes.size()) == bytes) {
        fitting.push_back(id);
      }
    }
    if (fitting.empty()) return false;
    const int32_t id = fitting[(*random)() % fitting.size()];
    SY_CHECK(matcher.AcceptToken(id));
    text.remove_prefix(matcher.vocabulary().bytes_of(id).size());
  }
  return matcher.can_end();
}

absl::optional<std::string> DrawText(
    const std::shared_ptr<const CompiledGrammar>& grammar,
    std::mt19937* random) {
  Matcher matcher(grammar);
  std::string text;
  while (!matcher.must_end()) {
    if (matcher.can_end() && (*random)() % 4 == 0) break;
    const std::vector<int32_t> allowed = AllowedTokens(&matcher);
    SY_CHECK(!allowed.empty());
    int32_t id = allowed[(*random)() % allowed.size()];
    // The longer the text, the more tries for a token that ends something.
    for (size_t tries = text.size() / 8; tries > 0; --tries) {
      const int32_t other = allowed[(*random)() % allowed.size()];
      if (Ending(matcher.vocabulary().bytes_of(other)) >
          Ending(matcher.vocabulary().bytes_of(id))) {
        id = other;
      }
    }
    SY_CHECK(matcher.AcceptToken(id));
    const absl::string_view bytes = matcher.vocabulary().bytes_of(id);
    text.append(bytes.data(), bytes.size());
    if (text.size() > kMaxText) return absl::nullopt;
  }
  SY_CHECK(matcher.can_end());
  return text;
}

}  // namespace switchyard::grammar
