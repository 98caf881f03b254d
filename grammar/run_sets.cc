#include "grammar/run_sets.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace switchyard::grammar {

RunSets::StackId RunSets::Push(int32_t state, StackId below) {
  const uint64_t key = uint64_t{static_cast<uint32_t>(below)} << 32 |
                       static_cast<uint32_t>(state);
  const auto [it, is_new] =
      ids_of_stacks_.emplace(key, static_cast<StackId>(stacks_.size()));
  if (is_new) {
    const int32_t depth = below < 0 ? 0 : stacks_[below].depth + 1;
    stacks_.push_back({state, below, depth});
    seen_stack_.push_back(0);
    seen_active_.push_back(0);
    deepest_ = std::max(deepest_, depth);
  }
  return it->second;
}

RunSets::SetId RunSets::Start(int32_t state) {
  const StackId seed[] = {Push(state, -1)};
  return Intern(seed, false);
}

RunSets::SetId RunSets::From(StackId stack) {
  const StackId seed[] = {stack};
  return Intern(seed, false);
}

void RunSets::AddStack(StackId id, Set* set) {
  while (id >= 0) {
    if (seen_stack_[id] == round_) return;
    seen_stack_[id] = round_;
    const PushdownTables::State& state = tables_->states[stacks_[id].state];
    if (stacks_[id].depth + state.height > PushdownTables::kMaxDepth) return;
    if (state.edges_begin != state.edges_end ||
        state.calls_begin != state.calls_end) {
      set->stacks.push_back(id);
    }
    if (!state.accepting) return;
    id = stacks_[id].below;
    if (id < 0) set->can_end = true;
  }
}

void RunSets::AddActive(StackId first, Set* set) {
  std::vector<StackId> open = {first};
  while (!open.empty()) {
    const StackId id = open.back();
    open.pop_back();
    if (seen_active_[id] == round_) continue;
    seen_active_[id] = round_;
    const Stack top = stacks_[id];  // Push() moves them
    const PushdownTables::State& state = tables_->states[top.state];
    if (state.edges_begin != state.edges_end) set->active.push_back(id);
    for (const PushdownTables::Call& call : tables_->CallsOf(state)) {
      const PushdownTables::State& target = tables_->states[call.target];
      if (top.depth + target.height > PushdownTables::kMaxDepth) continue;
      // Nothing to come back to: the callee's end is the caller's.
      const StackId below =
          target.last ? top.below : Push(call.target, top.below);
      const int32_t depth = below < 0 ? 0 : stacks_[below].depth + 1;
      if (depth + tables_->states[call.start].height >
          PushdownTables::kMaxDepth) {
        continue;
      }
      open.push_back(Push(call.start, below));
    }
  }
}

RunSets::SetId RunSets::Intern(absl::Span<const StackId> seeds, bool can_end) {
  ++round_;
  Set set;
  set.can_end = can_end;
  for (const StackId seed : seeds) AddStack(seed, &set);
  if (set.stacks.size() > kMaxRuns) return kDead;
  if (set.stacks.empty() && !set.can_end) return kDead;
  std::sort(set.stacks.begin(), set.stacks.end());
  std::vector<StackId> key = set.stacks;
  key.push_back(set.can_end ? -1 : -2);
  const auto it = ids_of_sets_.find(key);
  if (it != ids_of_sets_.end()) return it->second;
  for (const StackId id : set.stacks) AddActive(id, &set);
  if (set.active.size() > kMaxActive) return kDead;
  const SetId id = static_cast<SetId>(sets_.size());
  ids_of_sets_.emplace(std::move(key), id);
  sets_.push_back(std::move(set));
  moves_.emplace_back();
  moves_.back().fill(kUnknown);
  return id;
}

RunSets::SetId RunSets::FindNext(SetId set, uint8_t byte) {
  std::vector<StackId> seeds;
  for (const StackId id : sets_[set].active) {
    const Stack top = stacks_[id];
    for (const Dfa::Edge& edge : tables_->EdgesOf(tables_->states[top.state])) {
      if (byte < edge.low) break;
      if (byte > edge.high) continue;
      seeds.push_back(Push(edge.target, top.below));
      break;
    }
  }
  const SetId next = seeds.empty() ? kDead : Intern(seeds, false);
  moves_[set][byte] = next;
  return next;
}

void RunSets::ForgetAllBut(absl::Span<SetId> keep, absl::Span<SetId> more) {
  RunSets fresh(tables_);
  const auto move = [&](SetId id) {
    const Set& set = sets_[id];
    std::vector<StackId> seeds;
    for (const StackId stack : set.stacks) {
      std::vector<int32_t> states;
      for (StackId at = stack; at >= 0; at = stacks_[at].below) {
        states.push_back(stacks_[at].state);
      }
      StackId made = -1;
      for (size_t i = states.size(); i-- > 0;) {
        made = fresh.Push(states[i], made);
      }
      seeds.push_back(made);
    }
    const SetId moved = fresh.Intern(seeds, set.can_end);
    SY_CHECK(moved >= 0);
    return moved;
  };
  for (SetId& id : keep) id = id < 0 ? id : move(id);
  for (SetId& id : more) id = id < 0 ? id : move(id);
  fresh.deepest_ = deepest_;
  *this = std::move(fresh);
}

}  // namespace switchyard::grammar
