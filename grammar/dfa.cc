#include "grammar/dfa.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::grammar {
namespace {

using Kind = ExpressionNode::Kind;

bool IsNullable(const ExpressionNode& node, const std::vector<bool>& rules) {
  switch (node.kind) {
    case Kind::kBytes:
      return false;
    case Kind::kSequence:
      return std::all_of(
          node.children.begin(), node.children.end(),
          [&](const Expression& child) { return IsNullable(*child, rules); });
    case Kind::kChoice:
      return std::any_of(
          node.children.begin(), node.children.end(),
          [&](const Expression& child) { return IsNullable(*child, rules); });
    case Kind::kRepeat:
      return node.min == 0 || IsNullable(*node.children[0], rules);
    case Kind::kDfa:
      return node.dfa->states[0].accepting;
    case Kind::kRule:
      return rules[node.rule];
  }
  return false;
}

// Thompson's construction: each expression between two states.
class Nfa {
 public:
  struct State {
    std::vector<int32_t> empty;  // targets of moves without input
    std::vector<Dfa::Edge> edges;
    std::vector<Dfa::Call> calls;
  };

  Nfa(const std::vector<bool>* nullable, Budget* budget)
      : nullable_(nullable), budget_(budget) {}

  absl::StatusOr<int32_t> AddState() {
    SY_RETURN_IF_ERROR(budget_->Spend(1));
    states_.emplace_back();
    return static_cast<int32_t>(states_.size()) - 1;
  }

  // Adds what leads from `from` to the state returned.
  absl::StatusOr<int32_t> Add(const ExpressionNode& node, int32_t from) {
    switch (node.kind) {
      case Kind::kBytes: {
        SY_ASSIGN_OR_RETURN(const int32_t to, AddState());
        states_[from].edges.push_back({node.low, node.high, to});
        return to;
      }
      case Kind::kSequence: {
        int32_t at = from;
        for (const Expression& child : node.children) {
          SY_ASSIGN_OR_RETURN(at, Add(*child, at));
        }
        return at;
      }
      case Kind::kChoice: {
        SY_ASSIGN_OR_RETURN(const int32_t to, AddState());
        for (const Expression& child : node.children) {
          // A beginning of its own: a loop in one branch must not lead into
          // another.
          SY_ASSIGN_OR_RETURN(const int32_t begin, AddState());
          states_[from].empty.push_back(begin);
          SY_ASSIGN_OR_RETURN(const int32_t end, Add(*child, begin));
          states_[end].empty.push_back(to);
        }
        return to;
      }
      case Kind::kRepeat:
        return AddRepeat(node, from);
      case Kind::kDfa:
        return AddDfa(*node.dfa, from);
      case Kind::kRule: {
        SY_ASSIGN_OR_RETURN(const int32_t to, AddState());
        states_[from].calls.push_back({node.rule, to});
        if ((*nullable_)[node.rule]) states_[from].empty.push_back(to);
        return to;
      }
    }
    return from;
  }

  const State& state(int32_t id) const { return states_[id]; }
  size_t size() const { return states_.size(); }

 private:
  absl::StatusOr<int32_t> AddRepeat(const ExpressionNode& node, int32_t from) {
    const ExpressionNode& child = *node.children[0];
    int32_t at = from;
    for (int i = 0; i < node.min; ++i) {
      // Even if the child is empty: counts may be large.
      SY_RETURN_IF_ERROR(budget_->Spend(1));
      SY_ASSIGN_OR_RETURN(at, Add(child, at));
    }
    if (node.max < 0) {
      SY_ASSIGN_OR_RETURN(const int32_t loop, AddState());
      states_[at].empty.push_back(loop);
      SY_ASSIGN_OR_RETURN(const int32_t end, Add(child, loop));
      states_[end].empty.push_back(loop);
      SY_ASSIGN_OR_RETURN(const int32_t to, AddState());
      states_[loop].empty.push_back(to);
      return to;
    }
    SY_ASSIGN_OR_RETURN(const int32_t to, AddState());
    for (int i = node.min; i < node.max; ++i) {
      states_[at].empty.push_back(to);
      SY_ASSIGN_OR_RETURN(const int32_t begin, AddState());
      states_[at].empty.push_back(begin);
      SY_ASSIGN_OR_RETURN(at, Add(child, begin));
    }
    states_[at].empty.push_back(to);
    return to;
  }

  absl::StatusOr<int32_t> AddDfa(const Dfa& dfa, int32_t from) {
    const int32_t first = static_cast<int32_t>(states_.size());
    for (size_t i = 0; i < dfa.states.size(); ++i) {
      SY_RETURN_IF_ERROR(AddState().status());
    }
    SY_ASSIGN_OR_RETURN(const int32_t to, AddState());
    for (size_t i = 0; i < dfa.states.size(); ++i) {
      const Dfa::State& source = dfa.states[i];
      State& state = states_[first + static_cast<int32_t>(i)];
      for (const Dfa::Call& call : source.calls) {
        state.calls.push_back({call.rule, first + call.target});
        if ((*nullable_)[call.rule]) state.empty.push_back(first + call.target);
      }
      for (const Dfa::Edge& edge : source.edges) {
        state.edges.push_back({edge.low, edge.high, first + edge.target});
      }
      if (source.accepting) state.empty.push_back(to);
    }
    states_[from].empty.push_back(first);
    return to;
  }

  const std::vector<bool>* const nullable_;
  Budget* const budget_;
  std::vector<State> states_;
};

// The subset construction; a call is a letter like any other.
class Determinizer {
 public:
  Determinizer(const Nfa& nfa, int32_t end, Budget* budget)
      : nfa_(nfa), end_(end), budget_(budget), seen_(nfa.size(), 0) {}

  absl::StatusOr<Dfa> Run(int32_t start) {
    SY_RETURN_IF_ERROR(IdOf({start}).status());
    for (size_t i = 0; i < sets_.size(); ++i) {
      SY_RETURN_IF_ERROR(Expand(static_cast<int32_t>(i)));
    }
    return std::move(dfa_);
  }

 private:
  absl::StatusOr<int32_t> IdOf(std::vector<int32_t> seeds) {
    ++stamp_;
    std::vector<int32_t> closed;
    while (!seeds.empty()) {
      const int32_t state = seeds.back();
      seeds.pop_back();
      if (seen_[state] == stamp_) continue;
      seen_[state] = stamp_;
      closed.push_back(state);
      SY_RETURN_IF_ERROR(budget_->Spend(1));
      for (const int32_t next : nfa_.state(state).empty) seeds.push_back(next);
    }
    std::sort(closed.begin(), closed.end());
    const bool accepting = seen_[end_] == stamp_;
    // What only passes on says nothing.
    closed.erase(std::remove_if(closed.begin(), closed.end(),
                                [&](int32_t state) {
                                  return state != end_ &&
                                         nfa_.state(state).edges.empty() &&
                                         nfa_.state(state).calls.empty();
                                }),
                 closed.end());
    const auto [it, is_new] =
        ids_.emplace(std::move(closed), static_cast<int32_t>(sets_.size()));
    if (is_new) {
      sets_.push_back(&it->first);
      dfa_.states.emplace_back();
      dfa_.states.back().accepting = accepting;
    }
    return it->second;
  }

  absl::Status Expand(int32_t id) {
    // std::map's keys stay where they are.
    const std::vector<int32_t>& set = *sets_[id];
    std::vector<int> bounds;  // where an interval of bytes begins
    std::map<RuleId, std::vector<int32_t>> calls;
    for (const int32_t state : set) {
      for (const Dfa::Edge& edge : nfa_.state(state).edges) {
        bounds.push_back(edge.low);
        bounds.push_back(edge.high + 1);
      }
      for (const Dfa::Call& call : nfa_.state(state).calls) {
        calls[call.rule].push_back(call.target);
      }
    }
    std::sort(bounds.begin(), bounds.end());
    bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
    std::vector<std::vector<int32_t>> targets(bounds.size());
    for (const int32_t state : set) {
      for (const Dfa::Edge& edge : nfa_.state(state).edges) {
        size_t i = std::lower_bound(bounds.begin(), bounds.end(), edge.low) -
                   bounds.begin();
        for (; bounds[i] <= edge.high; ++i) {
          SY_RETURN_IF_ERROR(budget_->Spend(1));
          targets[i].push_back(edge.target);
        }
      }
    }
    std::vector<Dfa::Edge> edges;
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      if (targets[i].empty()) continue;
      SY_ASSIGN_OR_RETURN(const int32_t target, IdOf(std::move(targets[i])));
      const uint8_t low = static_cast<uint8_t>(bounds[i]);
      const uint8_t high = static_cast<uint8_t>(bounds[i + 1] - 1);
      if (!edges.empty() && edges.back().target == target &&
          edges.back().high + 1 == low) {
        edges.back().high = high;
      } else {
        edges.push_back({low, high, target});
      }
    }
    std::vector<Dfa::Call> all_calls;
    for (auto& [rule, seeds] : calls) {
      SY_ASSIGN_OR_RETURN(const int32_t target, IdOf(std::move(seeds)));
      all_calls.push_back({rule, target});
    }
    dfa_.states[id].edges = std::move(edges);
    dfa_.states[id].calls = std::move(all_calls);
    return absl::OkStatus();
  }

  const Nfa& nfa_;
  const int32_t end_;
  Budget* const budget_;
  std::vector<int64_t> seen_;  // by state: the last closure that it was in
  int64_t stamp_ = 0;
  std::map<std::vector<int32_t>, int32_t> ids_;
  std::vector<const std::vector<int32_t>*> sets_;
  Dfa dfa_;
};

}  // namespace

int32_t Dfa::Next(int32_t state, uint8_t byte) const {
  for (const Edge& edge : states[state].edges) {
    if (byte < edge.low) return -1;
    if (byte <= edge.high) return edge.target;
  }
  return -1;
}

bool Dfa::Matches(absl::string_view text) const {
  int32_t state = 0;
  for (const char c : text) {
    state = Next(state, static_cast<uint8_t>(c));
    if (state < 0) return false;
  }
  return states[state].accepting;
}

std::vector<bool> NullableRules(const Grammar& grammar) {
  std::vector<bool> nullable(grammar.rules.size(), false);
  bool changed = true;
  while (changed) {
    changed = false;
    for (size_t i = 0; i < nullable.size(); ++i) {
      if (!nullable[i] && IsNullable(*grammar.rules[i], nullable)) {
        nullable[i] = changed = true;
      }
    }
  }
  return nullable;
}

absl::StatusOr<Dfa> BuildDfa(const Expression& expression,
                             const std::vector<bool>& nullable,
                             Budget* budget) {
  Nfa nfa(&nullable, budget);
  SY_ASSIGN_OR_RETURN(const int32_t start, nfa.AddState());
  SY_ASSIGN_OR_RETURN(const int32_t end, nfa.Add(*expression, start));
  return Determinizer(nfa, end, budget).Run(start);
}

absl::StatusOr<Dfa> BuildDfa(const Expression& expression, Budget* budget) {
  return BuildDfa(expression, {}, budget);
}

absl::StatusOr<Dfa> Combine(const Dfa& a, const Dfa& b, Combination how,
                            Budget* budget) {
  const bool both = how == Combination::kBoth;
  Dfa out;
  std::map<std::pair<int32_t, int32_t>, int32_t> ids;
  std::vector<std::pair<int32_t, int32_t>> pairs;
  const auto id_of = [&](int32_t x, int32_t y) {
    const auto [it, is_new] =
        ids.emplace(std::make_pair(x, y), static_cast<int32_t>(pairs.size()));
    if (is_new) {
      pairs.push_back({x, y});
      out.states.emplace_back();
      const bool in_b = y >= 0 && b.states[y].accepting;
      out.states.back().accepting = a.states[x].accepting && in_b == both;
    }
    return it->second;
  };
  id_of(0, 0);
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto [x, y] = pairs[i];
    std::vector<Dfa::Edge> edges;
    for (const Dfa::Edge& edge : a.states[x].edges) {
      for (int byte = edge.low; byte <= edge.high; ++byte) {
        const int32_t next = y < 0 ? -1 : b.Next(y, static_cast<uint8_t>(byte));
        SY_RETURN_IF_ERROR(budget->Spend(1));
        if (next < 0 && both) continue;
        const int32_t target = id_of(edge.target, next);
        const uint8_t at = static_cast<uint8_t>(byte);
        if (!edges.empty() && edges.back().target == target &&
            edges.back().high + 1 == at) {
          edges.back().high = at;
        } else {
          edges.push_back({at, at, target});
        }
      }
    }
    out.states[i].edges = std::move(edges);
  }
  return out;
}

}  // namespace switchyard::grammar
