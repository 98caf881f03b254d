// The runs of a pushdown automaton over one text, all at once: sets of stacks,
// each set with a number, and the moves between them found once.
//
// Above: matcher.h (the text written so far), compiled_grammar.h (tokens tried
// from one state).

#ifndef SWITCHYARD_GRAMMAR_RUN_SETS_H_
#define SWITCHYARD_GRAMMAR_RUN_SETS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "grammar/compiled_grammar.h"

namespace switchyard::grammar {

// Not thread-safe. Borrows the tables.
class RunSets {
 public:
  using SetId = int32_t;
  using StackId = int32_t;  // -1: the empty stack
  static constexpr SetId kDead = -1;

  struct Stack {
    int32_t state = 0;
    StackId below = -1;
    int32_t depth = 0;  // entries below
  };

  explicit RunSets(const PushdownTables* tables) : tables_(tables) {}

  // Runs that are in this state, above nothing.
  SetId Start(int32_t state);
  // Runs that are in the top state of this stack.
  SetId From(StackId stack);
  // kDead if no run goes on with the byte.
  SetId Next(SetId set, uint8_t byte) {
    const SetId known = moves_[set][byte];
    return known != kUnknown ? known : FindNext(set, byte);
  }

  // Stacks that were not reached by a call alone.
  absl::Span<const StackId> Stacks(SetId set) const {
    return sets_[set].stacks;
  }
  const Stack& stack(StackId id) const { return stacks_[id]; }
  // A run has come to the end of everything.
  bool CanEnd(SetId set) const { return sets_[set].can_end; }
  // Something may follow.
  bool CanGoOn(SetId set) const { return !sets_[set].active.empty(); }
  // The deepest stack so far.
  int deepest() const { return deepest_; }

  // A bound on memory. When it is passed, all sets but those of `keep` should
  // be forgotten. The numbers of sets and stacks change, their order does not.
  bool crowded() const {
    return sets_.size() > kMaxSets || stacks_.size() > kMaxStacks;
  }
  void ForgetAllBut(absl::Span<SetId> keep, absl::Span<SetId> more = {});

 private:
  static constexpr SetId kUnknown = -2;
  static constexpr size_t kMaxSets = 2048;
  static constexpr size_t kMaxStacks = 1 << 16;
  // A grammar that leaves so much open at once is not worth its time: the runs
  // end then, as if the text did not match.
  static constexpr size_t kMaxRuns = 256;        // stacks
  static constexpr size_t kMaxActive = 1 << 12;  // with their callees

  struct Set {
    std::vector<StackId> stacks;  // ascending
    std::vector<StackId> active;  // those, and callees, that take a byte
    bool can_end = false;
  };

  StackId Push(int32_t state, StackId below);
  // With whatever follows from them without a byte.
  SetId Intern(absl::Span<const StackId> seeds, bool can_end);
  void AddStack(StackId id, Set* set);
  void AddActive(StackId id, Set* set);
  SetId FindNext(SetId set, uint8_t byte);

  const PushdownTables* tables_;
  std::vector<Stack> stacks_;
  absl::flat_hash_map<uint64_t, StackId> ids_of_stacks_;
  std::vector<uint32_t> seen_stack_, seen_active_;  // by stack: in which round
  uint32_t round_ = 0;
  std::vector<Set> sets_;
  std::vector<std::array<SetId, 256>> moves_;
  absl::flat_hash_map<std::vector<StackId>, SetId> ids_of_sets_;
  int deepest_ = 0;
};

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_RUN_SETS_H_
