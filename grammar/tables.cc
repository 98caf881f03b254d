// BuildTables: from rules to the tables of the pushdown automaton.

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "grammar/compiled_grammar.h"

namespace switchyard::grammar {
namespace {

constexpr int32_t kNever = std::numeric_limits<int32_t>::max() / 2;
// Below, classes are not worth finding.
constexpr size_t kManyStates = 512;

class Builder {
 public:
  Builder(const Grammar& grammar, Budget* budget)
      : grammar_(grammar), budget_(budget) {}

  absl::StatusOr<PushdownTables> Build() {
    SY_RETURN_IF_ERROR(AddRules());
    SY_RETURN_IF_ERROR(CheckLeftRecursion());
    SY_RETURN_IF_ERROR(FindHeights());
    out_.start = starts_[grammar_.root];
    const bool ends = out_.states[out_.start].height <= out_.kMaxDepth;
    if (!ends && !out_.empty_matches) {
      return absl::InvalidArgumentError(
          "nothing can match: the conditions contradict one another, or a "
          "rule needs itself without end");
    }
    RemoveDeadEnds();
    SY_RETURN_IF_ERROR(FindClasses());
    return std::move(out_);
  }

 private:
  absl::Status AddRules() {
    const std::vector<bool> nullable = NullableRules(grammar_);
    out_.empty_matches = nullable[grammar_.root];
    std::vector<Dfa> dfas;
    int32_t total = 0;
    std::vector<int32_t> first;
    for (const Expression& rule : grammar_.rules) {
      SY_ASSIGN_OR_RETURN(Dfa dfa, BuildDfa(rule, nullable, budget_));
      // Callees do not accept the empty text: a beginning that does not, and
      // that nothing leads back to.
      const bool own_start = dfa.states[0].accepting;
      if (own_start) {
        dfa.states.push_back(dfa.states[0]);
        dfa.states.back().accepting = false;
      }
      first.push_back(total);
      starts_.push_back(
          total +
          (own_start ? static_cast<int32_t>(dfa.states.size()) - 1 : 0));
      total += static_cast<int32_t>(dfa.states.size());
      dfas.push_back(std::move(dfa));
    }
    for (size_t rule = 0; rule < dfas.size(); ++rule) {
      for (const Dfa::State& source : dfas[rule].states) {
        PushdownTables::State state;
        state.accepting = source.accepting;
        state.edges_begin = static_cast<int32_t>(out_.edges.size());
        for (const Dfa::Edge& edge : source.edges) {
          out_.edges.push_back(
              {edge.low, edge.high, first[rule] + edge.target});
        }
        state.edges_end = static_cast<int32_t>(out_.edges.size());
        state.calls_begin = static_cast<int32_t>(out_.calls.size());
        for (const Dfa::Call& call : source.calls) {
          out_.calls.push_back({starts_[call.rule], first[rule] + call.target});
        }
        state.calls_end = static_cast<int32_t>(out_.calls.size());
        out_.states.push_back(state);
      }
    }
    return absl::OkStatus();
  }

  // A call that is made before any byte, of a rule that is being called.
  absl::Status CheckLeftRecursion() const {
    enum class Mark : uint8_t { kNew, kOpen, kDone };
    absl::flat_hash_map<int32_t, Mark> marks;
    for (const int32_t start : starts_) {
      std::vector<std::pair<int32_t, bool>> stack = {{start, false}};
      while (!stack.empty()) {
        const auto [state, leaving] = stack.back();
        stack.pop_back();
        if (leaving) {
          marks[state] = Mark::kDone;
          continue;
        }
        if (marks[state] == Mark::kDone) continue;
        if (marks[state] == Mark::kOpen) {
          return absl::InvalidArgumentError(
              "a rule (or a reference) leads back to itself before anything "
              "is written");
        }
        marks[state] = Mark::kOpen;
        stack.push_back({state, true});
        for (const auto& call : out_.CallsOf(out_.states[state])) {
          const Mark mark = marks[call.start];
          if (mark == Mark::kOpen) {
            return absl::InvalidArgumentError(
                "a rule (or a reference) leads back to itself before anything "
                "is written");
          }
          if (mark == Mark::kNew) stack.push_back({call.start, false});
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status FindHeights() {
    for (PushdownTables::State& state : out_.states) {
      state.height = state.accepting ? 0 : kNever;
    }
    bool changed = true;
    while (changed) {
      changed = false;
      SY_RETURN_IF_ERROR(
          budget_->Spend(static_cast<int64_t>(out_.states.size()) / 4));
      // Targets have higher numbers as a rule: from the back.
      for (size_t i = out_.states.size(); i-- > 0;) {
        PushdownTables::State& state = out_.states[i];
        int32_t least = state.height;
        for (const Dfa::Edge& edge : out_.EdgesOf(state)) {
          least = std::min(least, out_.states[edge.target].height);
        }
        for (const PushdownTables::Call& call : out_.CallsOf(state)) {
          least = std::min(least, std::max(out_.states[call.start].height + 1,
                                           out_.states[call.target].height));
        }
        if (least < state.height) {
          state.height = least;
          changed = true;
        }
      }
    }
    return absl::OkStatus();
  }

  // Moves to where no end is within reach.
  void RemoveDeadEnds() {
    std::vector<Dfa::Edge> edges;
    std::vector<PushdownTables::Call> calls;
    for (PushdownTables::State& state : out_.states) {
      const int32_t edges_begin = static_cast<int32_t>(edges.size());
      for (const Dfa::Edge& edge : out_.EdgesOf(state)) {
        if (out_.states[edge.target].height <= out_.kMaxDepth) {
          edges.push_back(edge);
        }
      }
      const int32_t calls_begin = static_cast<int32_t>(calls.size());
      for (const PushdownTables::Call& call : out_.CallsOf(state)) {
        if (out_.states[call.start].height < out_.kMaxDepth &&
            out_.states[call.target].height <= out_.kMaxDepth) {
          calls.push_back(call);
        }
      }
      state.edges_begin = edges_begin;
      state.edges_end = static_cast<int32_t>(edges.size());
      state.calls_begin = calls_begin;
      state.calls_end = static_cast<int32_t>(calls.size());
      state.last = state.accepting && state.edges_begin == state.edges_end &&
                   state.calls_begin == state.calls_end;
      if (state.height <= out_.kMaxDepth) {
        out_.max_height = std::max(out_.max_height, state.height);
      }
    }
    out_.edges = std::move(edges);
    out_.calls = std::move(calls);
  }

  // Moore's refinement, stopped after so many rounds as a text has bytes: a
  // byte or a call (of one byte at least) is looked through in each.
  absl::Status FindClasses() {
    const size_t count = out_.states.size();
    std::vector<int32_t> classes(count);
    if (count < kManyStates) {
      for (size_t i = 0; i < count; ++i) classes[i] = static_cast<int32_t>(i);
    } else {
      for (size_t i = 0; i < count; ++i) classes[i] = out_.states[i].accepting;
      int32_t num_classes = 2;
      for (int round = 0; round < out_.kClassBytes; ++round) {
        SY_RETURN_IF_ERROR(budget_->Spend(static_cast<int64_t>(count) / 4));
        absl::flat_hash_map<std::vector<int32_t>, int32_t> ids;
        std::vector<int32_t> next(count);
        for (size_t i = 0; i < count; ++i) {
          const auto [it, is_new] =
              ids.emplace(Signature(out_.states[i], classes),
                          static_cast<int32_t>(ids.size()));
          next[i] = it->second;
        }
        const int32_t found = static_cast<int32_t>(ids.size());
        classes = std::move(next);
        if (found == num_classes) break;  // stable: equal for good
        num_classes = found;
      }
    }
    int32_t num_classes = 0;
    for (const int32_t id : classes)
      num_classes = std::max(num_classes, id + 1);
    out_.class_member.assign(num_classes, -1);
    out_.class_shared.assign(num_classes, false);
    for (size_t i = 0; i < count; ++i) {
      const int32_t id = classes[i];
      out_.states[i].mask_class = id;
      if (out_.class_member[id] >= 0) {
        out_.class_shared[id] = true;
      } else {
        out_.class_member[id] = static_cast<int32_t>(i);
      }
    }
    return absl::OkStatus();
  }

  std::vector<int32_t> Signature(const PushdownTables::State& state,
                                 const std::vector<int32_t>& classes) const {
    std::vector<int32_t> out = {state.accepting};
    const auto edges = out_.EdgesOf(state);
    for (size_t i = 0; i < edges.size(); ++i) {
      // Neighbours that lead alike count as one.
      const int32_t target = classes[edges[i].target];
      if (i > 0 && edges[i - 1].high + 1 == edges[i].low &&
          classes[edges[i - 1].target] == target) {
        out.end()[-2] = edges[i].high;
        continue;
      }
      out.push_back(edges[i].low);
      out.push_back(edges[i].high);
      out.push_back(target);
    }
    out.push_back(-1);
    for (const PushdownTables::Call& call : out_.CallsOf(state)) {
      out.push_back(call.start);
      out.push_back(classes[call.target]);
    }
    return out;
  }

  const Grammar& grammar_;
  Budget* const budget_;
  std::vector<int32_t> starts_;  // by rule
  PushdownTables out_;
};

}  // namespace

absl::StatusOr<PushdownTables> BuildTables(const Grammar& grammar,
                                           Budget* budget) {
  return Builder(grammar, budget).Build();
}

}  // namespace switchyard::grammar
