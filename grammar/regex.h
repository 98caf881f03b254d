// Regular expressions: the part that describes a regular set of texts, in the
// syntax that JavaScript, Python and PCRE share.
//
// Literals, ., classes, \d \w \s (ASCII digits and letters, as in JavaScript)
// and their inverses, \t \n \r \f \v \0 \xHH \uHHHH \u{H...}, groups of any
// name, |, * + ? {m} {m,} {m,n}, lazy or not. ^ and $ where they begin and end
// an alternative of the whole. Not: look-around, back references, word
// boundaries, flags, \p{...}.

#ifndef SWITCHYARD_GRAMMAR_REGEX_H_
#define SWITCHYARD_GRAMMAR_REGEX_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grammar/budget.h"
#include "grammar/code_points.h"
#include "grammar/expression.h"

namespace switchyard::grammar {

enum class RegexMatch {
  kWhole,   // the whole text, with or without ^ and $
  kSearch,  // anywhere in the text unless ^ or $ says otherwise (JSON Schema)
};

// INVALID_ARGUMENT names the place in the expression and what is wrong there.
absl::StatusOr<Expression> ParseRegex(absl::string_view pattern, TextForm form,
                                      RegexMatch match, Budget* budget);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_REGEX_H_
