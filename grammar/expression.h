// A grammar before it is compiled: rules, whose bodies are regular expressions
// over bytes and other rules.
//
// Above: json_schema.h, regex.h, ebnf.h, structural_tag.h ... write one.
// Below: compiled_grammar.h makes automata of it.

#ifndef SWITCHYARD_GRAMMAR_EXPRESSION_H_
#define SWITCHYARD_GRAMMAR_EXPRESSION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace switchyard::grammar {

struct Dfa;  // dfa.h

using RuleId = int32_t;

// An immutable node of a tree that shares its branches. Empty pointers never
// occur.
struct ExpressionNode;
using Expression = std::shared_ptr<const ExpressionNode>;

struct ExpressionNode {
  enum class Kind {
    kBytes,     // one byte of [low, high]
    kSequence,  // all children, in order; none: the empty text
    kChoice,    // one child; none: nothing at all matches
    kRepeat,    // the only child, `min` to `max` times
    kDfa,       // what `dfa` accepts
    kRule,      // what rule `rule` matches
  };
  Kind kind = Kind::kSequence;
  uint8_t low = 0, high = 0;
  int32_t min = 0, max = 0;  // max < 0: no bound
  RuleId rule = 0;
  std::vector<Expression> children;
  std::shared_ptr<const Dfa> dfa;
};

Expression Empty();
Expression Nothing();
Expression Byte(uint8_t low, uint8_t high);
Expression Literal(absl::string_view bytes);
Expression Sequence(std::vector<Expression> parts);
Expression Choice(std::vector<Expression> options);
// 0 <= min <= max, or max < 0.
Expression Repeat(Expression what, int min, int max);
inline Expression Optional(Expression what) {
  return Repeat(std::move(what), 0, 1);
}
Expression Automaton(std::shared_ptr<const Dfa> dfa);
Expression Rule(RuleId rule);

// A rule may be used before it is defined; one that is never defined matches
// nothing.
struct Grammar {
  RuleId root = 0;  // the whole
  std::vector<Expression> rules;

  RuleId AddRule() {
    rules.push_back(Nothing());
    return static_cast<RuleId>(rules.size()) - 1;
  }
};

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_EXPRESSION_H_
