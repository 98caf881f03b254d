// A grammar as a pushdown automaton over bytes, and what is known of its states
// about a vocabulary.
//
// Above: matcher.h runs it. Below: dfa.h.

#ifndef SWITCHYARD_GRAMMAR_COMPILED_GRAMMAR_H_
#define SWITCHYARD_GRAMMAR_COMPILED_GRAMMAR_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "grammar/budget.h"
#include "grammar/dfa.h"
#include "grammar/expression.h"
#include "grammar/vocabulary.h"

namespace switchyard::grammar {

// The states of all rules' automata. A run is a stack of them: a call leaves
// the state behind the call on it. No callee accepts the empty text. Immutable.
struct PushdownTables {
  // Calls of calls that are open at a time: nesting of the text has a bound,
  // and no text is begun that could not be ended within it.
  static constexpr int kMaxDepth = 100;

  struct State {
    int32_t edges_begin = 0, edges_end = 0;
    int32_t calls_begin = 0, calls_end = 0;
    // Stack entries needed at least to come to an end of the rule from here.
    int32_t height = 0;
    // States of one class cannot be told apart by texts of up to kClassBytes.
    int32_t mask_class = 0;
    bool accepting = false;
    bool last = false;  // accepting, and nothing more can follow in the rule
  };
  struct Call {
    int32_t start = 0;   // of the rule called
    int32_t target = 0;  // behind the call
  };

  static constexpr int kClassBytes = 20;

  std::vector<State> states;
  std::vector<Dfa::Edge> edges;  // of a state: disjoint, ascending
  std::vector<Call> calls;
  std::vector<int32_t> class_member;  // by class: one of its states
  std::vector<bool> class_shared;     // by class: it has several
  int32_t start = 0;
  bool empty_matches = false;
  int32_t max_height = 0;

  absl::Span<const Dfa::Edge> EdgesOf(const State& state) const {
    return absl::MakeConstSpan(edges).subspan(
        state.edges_begin, state.edges_end - state.edges_begin);
  }
  absl::Span<const Call> CallsOf(const State& state) const {
    return absl::MakeConstSpan(calls).subspan(
        state.calls_begin, state.calls_end - state.calls_begin);
  }
};

// INVALID_ARGUMENT: nothing matches the grammar, a rule begins with itself, or
// the budget is spent.
absl::StatusOr<PushdownTables> BuildTables(const Grammar& grammar,
                                           Budget* budget);

// Thread-safe.
class CompiledGrammar {
 public:
  // Which tokens a state allows, as far as its own rule (and those it calls)
  // can say.
  struct StateMask {
    // Either: a bit for each token, or the ids alone if they are few.
    std::vector<uint64_t> bits;
    std::vector<int32_t> ids;
    // Nodes of the vocabulary at which the rule may end. What is below them
    // depends on what is behind the call.
    std::vector<int32_t> ends;
    int depth = 0;         // how far the stack grew in trying
    bool partial = false;  // tokens above kClassBytes are not in it
  };

  CompiledGrammar(PushdownTables tables,
                  std::shared_ptr<const Vocabulary> vocabulary)
      : tables_(std::move(tables)), vocabulary_(std::move(vocabulary)) {}

  const PushdownTables& tables() const { return tables_; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }
  // What the tables take. Masks come on top, 8 MiB at most.
  int64_t TableBytes() const;

  // Computed when first asked for, and kept within bounds.
  std::shared_ptr<const StateMask> MaskOf(int32_t state) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Computes the masks of states that allow much of the vocabulary, which take
  // a millisecond or two each: at most `count`.
  void WarmUp(int count) const;

 private:
  std::shared_ptr<const StateMask> Compute(int32_t state) const;

  const PushdownTables tables_;
  const std::shared_ptr<const Vocabulary> vocabulary_;

  mutable Mutex mutex_;
  mutable absl::flat_hash_map<int32_t, std::shared_ptr<const StateMask>> masks_
      ABSL_GUARDED_BY(mutex_);  // by class
  mutable int64_t mask_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_COMPILED_GRAMMAR_H_
