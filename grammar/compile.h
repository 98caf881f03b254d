// What a client asked for -> a grammar that runs.
//
// Below: json_schema.h, regex.h, ebnf.h, tool_calls.h, structural_tag.h. Not
// here: threads.

#ifndef SWITCHYARD_GRAMMAR_COMPILE_H_
#define SWITCHYARD_GRAMMAR_COMPILE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grammar/compiled_grammar.h"
#include "grammar/grammar_kind.h"
#include "grammar/vocabulary.h"

namespace switchyard::grammar {

inline constexpr size_t kMaxGrammarBytes = size_t{1} << 20;

// Takes a second and some hundred megabytes at most. INVALID_ARGUMENT with what
// is wrong, and where. `vocabulary` is not null. `leading_newlines`: so many
// line ends may stand before the output (behind a thought, models write two).
absl::StatusOr<std::shared_ptr<const CompiledGrammar>> CompileGrammar(
    GrammarKind kind, const std::string& text, int leading_newlines,
    std::shared_ptr<const Vocabulary> vocabulary);

// The same without a vocabulary: whether the text is a grammar at all.
absl::StatusOr<PushdownTables> CompileTables(GrammarKind kind,
                                             const std::string& text,
                                             int leading_newlines);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_COMPILE_H_
