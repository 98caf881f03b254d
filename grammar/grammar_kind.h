// The notations of compile.h.

#ifndef SWITCHYARD_GRAMMAR_GRAMMAR_KIND_H_
#define SWITCHYARD_GRAMMAR_GRAMMAR_KIND_H_

namespace switchyard::grammar {

enum class GrammarKind {
  kJsonSchema,     // text: a schema
  kRegex,          // text: an expression for the whole output
  kEbnf,           // text: rules (ebnf.h)
  kToolCalls,      // text: JSON (tool_calls.h)
  kStructuralTag,  // text: JSON (structural_tag.h)
};

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_GRAMMAR_KIND_H_
