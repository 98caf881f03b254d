// Structural tags: free text in which tags hold what a format says, in the JSON
// of XGrammar, which SGLang and vLLM pass on.
//
//   {"format": FORMAT}, where a FORMAT is an object with a "type":
//     const_string  value
//     json_schema   json_schema, style ("json", "qwen_xml")
//     qwen_xml_parameter          json_schema (of an object), as qwen_xml
//     regex         pattern
//     grammar       grammar (ebnf.h)
//     any_text      excludes
//     sequence, or  elements
//     optional, star, plus        content
//     repeat        content, min, max (-1: no bound)
//     tag           begin, content, end (a string, or several to choose from)
//     triggered_tags              triggers, tags, excludes, at_least_one,
//                                 stop_after_first
//     tags_with_separator         tags, separator, at_least_one,
//                                 stop_after_first
//     dispatch      rules ([[pattern, FORMAT], ...]), excludes, loop
//   or, as it was before: {"structures": [{"begin", "schema", "end"}, ...],
//     "triggers": [...]}
//
// Free text of triggered_tags (dispatch) ends with the first trigger (pattern)
// that is complete in it: then the rest of a tag that begins so must follow.
// Free text within a tag ends where the tag's end is complete.
//
// Above: compile.h. Below: json_schema.h, xml_parameters.h, regex.h, ebnf.h,
// free_text.h.

#ifndef SWITCHYARD_GRAMMAR_STRUCTURAL_TAG_H_
#define SWITCHYARD_GRAMMAR_STRUCTURAL_TAG_H_

#include "absl/status/statusor.h"
#include "base/json.h"
#include "grammar/budget.h"
#include "grammar/expression.h"

namespace switchyard::grammar {

// INVALID_ARGUMENT names the part that is wrong, or that cannot be promised
// (formats of tokens, counts of them, other models' styles).
absl::StatusOr<Expression> StructuralTag(const Json& tag, Grammar* grammar,
                                         Budget* budget);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_STRUCTURAL_TAG_H_
