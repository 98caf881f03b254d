// The values of JSON Schema's "format", as regular expressions.

#ifndef SWITCHYARD_GRAMMAR_FORMATS_H_
#define SWITCHYARD_GRAMMAR_FORMATS_H_

#include "absl/strings/string_view.h"

namespace switchyard::grammar {

// "" for a format that is not known: it says nothing then, as in the standard.
// An expression may be narrower than its format (an e-mail address without
// comments, no leap second), never wider: what it matches is valid.
absl::string_view FormatExpression(absl::string_view format);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_FORMATS_H_
