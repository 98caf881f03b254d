// Grammars over a vocabulary of bytes, and texts drawn from them.

#ifndef SWITCHYARD_TESTS_GRAMMAR_GRAMMAR_TEST_UTIL_H_
#define SWITCHYARD_TESTS_GRAMMAR_GRAMMAR_TEST_UTIL_H_

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "grammar/compile.h"
#include "grammar/matcher.h"

namespace switchyard::grammar {

// All single bytes (ids 0 to 255), and some longer tokens, as tokenizers of
// English and JSON have them.
std::shared_ptr<const Vocabulary> TestVocabulary();

absl::StatusOr<std::shared_ptr<const CompiledGrammar>> Compile(
    GrammarKind kind, const std::string& text);

// Whether the whole text is one of the grammar's; taken byte by byte.
bool Matches(const std::shared_ptr<const CompiledGrammar>& grammar,
             absl::string_view text);
// The same, in random tokens of the vocabulary, each of which must be in the
// mask. Aborts if a mask and AcceptToken disagree about any token.
bool MatchesInTokens(const std::shared_ptr<const CompiledGrammar>& grammar,
                     absl::string_view text, std::mt19937* random);

// A text of the grammar, written by a model that chooses at random among the
// tokens of each mask. It prefers to end, the more the longer the text is.
// Nothing if it did not come to an end. Aborts at a dead end, and where a token
// of a mask is refused.
absl::optional<std::string> DrawText(
    const std::shared_ptr<const CompiledGrammar>& grammar,
    std::mt19937* random);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_TESTS_GRAMMAR_GRAMMAR_TEST_UTIL_H_
