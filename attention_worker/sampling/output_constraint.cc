#include "attention_worker/sampling/output_constraint.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "grammar/vocabulary.h"

namespace switchyard::attention_worker {
namespace {

std::vector<int32_t> Within(std::vector<int32_t> ids, int64_t size) {
  ids.erase(std::remove_if(ids.begin(), ids.end(),
                           [size](int32_t id) { return id < 0 || id >= size; }),
            ids.end());
  return ids;
}

void Set(absl::Span<uint64_t> mask, int32_t id, bool allowed) {
  const uint64_t bit = uint64_t{1} << (id & 63);
  uint64_t& word = mask[static_cast<size_t>(id >> 6)];
  word = allowed ? word | bit : word & ~bit;
}

}  // namespace

OutputConstraint::OutputConstraint(
    std::shared_ptr<const grammar::CompiledGrammar> grammar,
    OutputReasoning reasoning, std::vector<int32_t> stop_ids)
    : matcher_(std::move(grammar)),
      stop_ids_(Within(std::move(stop_ids), matcher_.vocabulary().size())),
      phase_(Phase::kText) {
  const grammar::Vocabulary& vocabulary = matcher_.vocabulary();
  // A vocabulary without these tokens has no reasoning to look for.
  if (!vocabulary.think_begin() || !vocabulary.think_end()) return;
  if (reasoning == OutputReasoning::kMaybe) phase_ = Phase::kBegin;
  if (reasoning == OutputReasoning::kOpened) phase_ = Phase::kThinking;
}

bool OutputConstraint::IsStop(int32_t id) const {
  return absl::c_linear_search(stop_ids_, id);
}

bool OutputConstraint::Take(int32_t id) {
  switch (phase_) {
    case Phase::kThinking:
      if (IsStop(id)) return false;
      if (id == matcher_.vocabulary().think_end()) phase_ = Phase::kText;
      return true;
    case Phase::kBegin:
      if (id == matcher_.vocabulary().think_begin()) {
        phase_ = Phase::kThinking;
        return true;
      }
      break;
    case Phase::kText:
      break;
    case Phase::kEnded:
      return false;
  }
  if (matcher_.can_end() && IsStop(id)) {
    phase_ = Phase::kEnded;
    return true;
  }
  if (!matcher_.AcceptToken(id)) return false;
  phase_ = Phase::kText;
  return true;
}

bool OutputConstraint::complete() const {
  return phase_ == Phase::kText && stop_ids_.empty() && matcher_.must_end();
}

bool OutputConstraint::FillMask(absl::Span<uint64_t> mask) {
  if (phase_ == Phase::kEnded) {
    absl::c_fill(mask, 0);
    return false;
  }
  if (phase_ == Phase::kThinking) {
    absl::c_fill(mask, ~uint64_t{0});
    const int64_t size = matcher_.vocabulary().size();
    if (size % 64 != 0) mask.back() = (uint64_t{1} << (size % 64)) - 1;
    for (const int32_t id : stop_ids_) Set(mask, id, false);
    return true;
  }
  matcher_.FillMask(mask);
  if (phase_ == Phase::kBegin) {
    Set(mask, *matcher_.vocabulary().think_begin(), true);
  }
  if (matcher_.can_end()) {
    for (const int32_t id : stop_ids_) Set(mask, id, true);
  }
  return absl::c_any_of(mask, [](uint64_t word) { return word != 0; });
}

void OutputConstraint::BeginTrial() {
  phase_before_trial_ = phase_;
  matcher_.BeginTrial();
}

void OutputConstraint::EndTrial() {
  phase_ = phase_before_trial_;
  matcher_.EndTrial();
}

}  // namespace switchyard::attention_worker
