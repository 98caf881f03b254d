#include "grammar/compiled_grammar.h"

#include <algorithm>
#include <utility>

#include "grammar/run_sets.h"
#include "grammar/token_walk.h"

namespace switchyard::grammar {
namespace {

// Of all masks of one grammar; then they are forgotten and found anew.
constexpr int64_t kMaxMaskBytes = int64_t{8} << 20;
// Fewer tokens than this are kept as a list.
constexpr size_t kFewTokens = 1024;

int64_t BytesOf(const CompiledGrammar::StateMask& mask) {
  return static_cast<int64_t>(
      mask.bits.size() * sizeof(uint64_t) + mask.ids.size() * sizeof(int32_t) +
      mask.ends.size() * sizeof(int32_t) + sizeof(mask));
}

}  // namespace

std::shared_ptr<const CompiledGrammar::StateMask> CompiledGrammar::MaskOf(
    int32_t state) const {
  const int32_t id = tables_.states[state].mask_class;
  {
    MutexLock lock(&mutex_);
    const auto it = masks_.find(id);
    if (it != masks_.end()) return it->second;
  }
  // Two threads may compute the same; that is rare, and does no harm.
  std::shared_ptr<const StateMask> mask = Compute(tables_.class_member[id]);
  MutexLock lock(&mutex_);
  if (mask_bytes_ > kMaxMaskBytes) {
    masks_.clear();
    mask_bytes_ = 0;
  }
  if (masks_.emplace(id, mask).second) mask_bytes_ += BytesOf(*mask);
  return mask;
}

std::shared_ptr<const CompiledGrammar::StateMask> CompiledGrammar::Compute(
    int32_t state) const {
  auto mask = std::make_shared<StateMask>();
  const bool shared = tables_.class_shared[tables_.states[state].mask_class];
  mask->partial = shared;
  RunSets runs(&tables_);
  const RunSets::SetId start = runs.Start(state);
  if (start < 0) return mask;
  WalkOptions options;
  if (shared) options.max_depth = PushdownTables::kClassBytes;
  std::vector<int32_t> ids;
  WalkTokens(*vocabulary_, &runs, start, 0, options, {},
             [&](int32_t node, RunSets::SetId set) {
               const auto tokens = vocabulary_->tokens(node);
               ids.insert(ids.end(), tokens.begin(), tokens.end());
               if (runs.CanEnd(set) && vocabulary_->end(node) > node + 1) {
                 mask->ends.push_back(node);
               }
             });
  mask->depth = runs.deepest();
  if (ids.size() < kFewTokens) {
    mask->ids = std::move(ids);
  } else {
    mask->bits.assign(static_cast<size_t>(vocabulary_->mask_words()), 0);
    for (const int32_t id : ids)
      mask->bits[id >> 6] |= uint64_t{1} << (id & 63);
  }
  return mask;
}

int64_t CompiledGrammar::TableBytes() const {
  return static_cast<int64_t>(
      tables_.states.size() * sizeof(PushdownTables::State) +
      tables_.edges.size() * sizeof(Dfa::Edge) +
      tables_.calls.size() * sizeof(PushdownTables::Call) +
      tables_.class_member.size() * sizeof(int32_t));
}

void CompiledGrammar::WarmUp(int count) const {
  // A state that takes half of all bytes allows much.
  constexpr int kManyBytes = 128;
  for (size_t id = 0; id < tables_.class_member.size() && count > 0; ++id) {
    const int32_t member = tables_.class_member[id];
    int bytes = 0;
    for (const Dfa::Edge& edge : tables_.EdgesOf(tables_.states[member])) {
      bytes += edge.high - edge.low + 1;
    }
    if (bytes < kManyBytes) continue;
    MaskOf(member);
    --count;
  }
}

}  // namespace switchyard::grammar
