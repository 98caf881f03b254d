#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "grammar/compile.h"
#include "grammar/matcher.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::fuzz {
namespace {

using ::switchyard::grammar::CompileGrammar;
using ::switchyard::grammar::GrammarKind;
using ::switchyard::grammar::Matcher;
using ::switchyard::grammar::Vocabulary;

const std::shared_ptr<const Vocabulary>& Bytes() {
  static const auto* const vocabulary = [] {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) {
      tokens.push_back(std::string(1, static_cast<char>(byte)));
    }
    for (const char* text : {"{\"", "\":", "\", \"", "]]", "[[", "aa", "12"}) {
      tokens.push_back(text);
    }
    return new std::shared_ptr<const Vocabulary>(Vocabulary::Create(tokens));
  }();
  return *vocabulary;
}

}  // namespace

// The first byte says which notation, the others are its text, and also choose
// among the tokens of a text that is written under the grammar.
void FuzzGrammar(absl::Span<const uint8_t> bytes) {
  if (bytes.empty()) return;
  const auto kind = static_cast<GrammarKind>(bytes[0] % 5);
  const std::string text(bytes.begin() + 1, bytes.end());
  const auto compiled = CompileGrammar(kind, text, 0, Bytes());
  if (!compiled.ok()) {
    SY_CHECK(!compiled.status().message().empty());
    return;
  }
  Matcher matcher(*compiled);
  std::vector<uint64_t> mask(
      static_cast<size_t>(matcher.vocabulary().mask_words()));
  constexpr size_t kMostTokens = 64;
  for (size_t i = 0; i < kMostTokens; ++i) {
    matcher.FillMask(absl::MakeSpan(mask));
    std::vector<int32_t> allowed;
    for (int32_t id = 0; id < matcher.vocabulary().size(); ++id) {
      const bool in_mask =
          (mask[static_cast<size_t>(id >> 6)] >> (id & 63) & 1) != 0;
      matcher.BeginTrial();
      SY_CHECK(matcher.AcceptToken(id) == in_mask);
      matcher.EndTrial();
      if (in_mask) allowed.push_back(id);
    }
    SY_CHECK(allowed.empty() == matcher.must_end());
    // No dead end.
    SY_CHECK(!allowed.empty() || matcher.can_end());
    if (allowed.empty()) return;
    const size_t choice = bytes[i % bytes.size()] + i * 31;
    SY_CHECK(matcher.AcceptToken(allowed[choice % allowed.size()]));
  }
}

}  // namespace switchyard::fuzz

SWITCHYARD_FUZZER_ENTRY(FuzzGrammar);
