// Deterministic automata over bytes and calls of rules.

#ifndef SWITCHYARD_GRAMMAR_DFA_H_
#define SWITCHYARD_GRAMMAR_DFA_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grammar/budget.h"
#include "grammar/expression.h"

namespace switchyard::grammar {

// State 0 is the start; there is always one. A value.
struct Dfa {
  struct Edge {
    uint8_t low = 0, high = 0;
    int32_t target = 0;
  };
  struct Call {
    RuleId rule = 0;
    int32_t target = 0;  // after the rule
  };
  struct State {
    std::vector<Edge> edges;  // disjoint, ascending
    std::vector<Call> calls;
    bool accepting = false;
  };
  std::vector<State> states;

  // -1: none.
  int32_t Next(int32_t state, uint8_t byte) const;
  // REQUIRES: no calls.
  bool Matches(absl::string_view text) const;
};

// Which rules match the empty text.
std::vector<bool> NullableRules(const Grammar& grammar);

// INVALID_ARGUMENT: the budget is spent. A call of a nullable rule may also be
// passed by without a call, so that callees need not accept the empty text.
absl::StatusOr<Dfa> BuildDfa(const Expression& expression,
                             const std::vector<bool>& nullable, Budget* budget);
// Of an expression without rules.
absl::StatusOr<Dfa> BuildDfa(const Expression& expression, Budget* budget);

// What both accept, or the first and not the second. Neither has calls.
enum class Combination { kBoth, kFirstOnly };
absl::StatusOr<Dfa> Combine(const Dfa& a, const Dfa& b, Combination how,
                            Budget* budget);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_DFA_H_
