// Grammars in the notation of llama.cpp (GBNF), which XGrammar's EBNF shares.
//
//   root ::= "a" rest | [0-9]+   # a comment
//   rest ::= (" " [^\n"])* | "\u00e9"{2,3}
//
// A rule may go on over several lines. `root` is the whole.

#ifndef SWITCHYARD_GRAMMAR_EBNF_H_
#define SWITCHYARD_GRAMMAR_EBNF_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grammar/budget.h"
#include "grammar/expression.h"

namespace switchyard::grammar {

// INVALID_ARGUMENT names the line and what is wrong there.
absl::StatusOr<Grammar> ParseEbnf(absl::string_view text, Budget* budget);
// Adds its rules to a grammar; the rule returned is its root.
absl::StatusOr<RuleId> AddEbnf(absl::string_view text, Grammar* grammar,
                               Budget* budget);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_EBNF_H_
