// Text around what a grammar says: anything, but for some markers.
//
// Above: tool_calls.h, structural_tag.h. Below: dfa.h.

#ifndef SWITCHYARD_GRAMMAR_FREE_TEXT_H_
#define SWITCHYARD_GRAMMAR_FREE_TEXT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grammar/budget.h"
#include "grammar/dfa.h"
#include "grammar/expression.h"

namespace switchyard::grammar {

// Texts, of any bytes, in which none of the markers occurs. No marker is empty.
// INVALID_ARGUMENT: the budget is spent.
absl::StatusOr<Dfa> TextWithout(const std::vector<std::string>& markers,
                                Budget* budget);

// What a text ends with.
struct TextEnd {
  std::string marker;  // not empty
  RuleId then = -1;    // what follows it; -1: nothing
};

// Texts that end with one of `ends`, and what follows that: none of them, and
// none of `without`, is complete before. So where such a text ends, it has to
// end. Of markers that are complete at the same byte the longest counts, and of
// equals an end.
absl::StatusOr<Dfa> TextUpTo(const std::vector<TextEnd>& ends,
                             const std::vector<std::string>& without,
                             Budget* budget);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_FREE_TEXT_H_
