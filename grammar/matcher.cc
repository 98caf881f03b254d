#include "grammar/matcher.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "grammar/token_walk.h"

namespace switchyard::grammar {
namespace {

void Allow(absl::Span<const int32_t> ids, absl::Span<uint64_t> mask) {
  for (const int32_t id : ids) mask[id >> 6] |= uint64_t{1} << (id & 63);
}

}  // namespace

Matcher::Matcher(std::shared_ptr<const CompiledGrammar> grammar)
    : grammar_(std::move(grammar)), runs_(&grammar_->tables()) {
  pins_.fill(RunSets::kDead);
  pins_[kAt] = runs_.Start(grammar_->tables().start);
  can_end_ = grammar_->tables().empty_matches;
}

bool Matcher::must_end() const {
  return pins_[kAt] < 0 || !runs_.CanGoOn(pins_[kAt]);
}

void Matcher::BeginTrial() {
  pins_[kTrial] = pins_[kAt];
  could_end_ = can_end_;
}

void Matcher::EndTrial() {
  pins_[kAt] = pins_[kTrial];
  can_end_ = could_end_;
  pins_[kTrial] = RunSets::kDead;
}

void Matcher::ForgetIfCrowded() {
  if (!runs_.crowded()) return;
  runs_.ForgetAllBut(absl::MakeSpan(pins_));
  mask_of_ = RunSets::kDead;
}

bool Matcher::Accept(absl::string_view bytes) {
  if (bytes.empty()) return true;
  ForgetIfCrowded();
  RunSets::SetId at = pins_[kAt];
  for (const char c : bytes) {
    if (at >= 0) at = runs_.Next(at, static_cast<uint8_t>(c));
    if (at < 0) return false;
  }
  pins_[kAt] = at;
  can_end_ = runs_.CanEnd(at);
  return true;
}

bool Matcher::AcceptToken(int32_t id) {
  const absl::string_view bytes = vocabulary().bytes_of(id);
  if (bytes.empty() || bytes.size() > Vocabulary::kMaxTokenBytes) return false;
  return Accept(bytes);
}

void Matcher::FillMask(absl::Span<uint64_t> mask) {
  SY_CHECK(static_cast<int64_t>(mask.size()) == vocabulary().mask_words());
  if (pins_[kAt] >= 0 && mask_of_ == pins_[kAt]) {
    std::copy(mask_.begin(), mask_.end(), mask.begin());
    return;
  }
  std::fill(mask.begin(), mask.end(), 0);
  if (pins_[kAt] < 0) return;
  ForgetIfCrowded();
  // Stacks may get other numbers meanwhile, but stay in order.
  for (size_t i = 0; i < runs_.Stacks(pins_[kAt]).size(); ++i) {
    AllowFrom(runs_.Stacks(pins_[kAt])[i], mask);
  }
  mask_of_ = pins_[kAt];
  mask_.assign(mask.begin(), mask.end());
}

void Matcher::AllowFrom(RunSets::StackId id, absl::Span<uint64_t> mask) {
  const RunSets::Stack stack = runs_.stack(id);
  const std::shared_ptr<const CompiledGrammar::StateMask> of_state =
      grammar_->MaskOf(stack.state);
  if (stack.depth + of_state->depth + grammar_->tables().max_height >
      PushdownTables::kMaxDepth) {
    // Near the greatest depth the state alone does not tell.
    pins_[kStart] = runs_.From(id);
    AllowBelow(0, 0, mask);
    return;
  }
  for (size_t i = 0; i < of_state->bits.size(); ++i) {
    mask[i] |= of_state->bits[i];
  }
  Allow(of_state->ids, mask);
  // From here on walks may give stacks other numbers: first the set that is
  // needed twice.
  pins_[kBelow] = stack.below < 0 ? RunSets::kDead : runs_.From(stack.below);
  if (of_state->partial) {
    pins_[kStart] = runs_.From(id);
    AllowBelow(0, PushdownTables::kClassBytes + 1, mask);
  }
  pins_[kStart] = pins_[kBelow];
  for (const int32_t node : of_state->ends) AllowBelow(node, 0, mask);
}

void Matcher::AllowBelow(int32_t node, int min_depth,
                         absl::Span<uint64_t> mask) {
  if (pins_[kStart] < 0) return;
  WalkOptions options;
  options.min_depth = min_depth;
  WalkTokens(vocabulary(), &runs_, pins_[kStart], node, options,
             absl::MakeSpan(pins_), [&](int32_t at, RunSets::SetId) {
               Allow(vocabulary().tokens(at), mask);
             });
}

}  // namespace switchyard::grammar
