#include "attention_worker/state/sequence_state.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {

std::unique_ptr<SequenceState> SequenceState::TryCreate(StateMemory* memory,
                                                        int64_t max_tokens) {
  SY_CHECK(max_tokens >= 0);
  StateBlock fixed = memory->TryTakeFixed();
  if (fixed == nullptr) return nullptr;
  std::fill_n(fixed.get(), memory->shape().FixedFloats(), 0.0f);
  return std::unique_ptr<SequenceState>(
      new SequenceState(memory, max_tokens, std::move(fixed)));
}

std::unique_ptr<SequenceState> SequenceState::TryRestore(
    StateMemory* memory, const StateSnapshot& snapshot, int64_t max_tokens) {
  SY_CHECK(snapshot.num_tokens <= max_tokens);
  const StateShape& shape = memory->shape();
  StateBlock fixed = memory->TryTakeFixed();
  if (fixed == nullptr) return nullptr;
  std::memcpy(fixed.get(), snapshot.fixed.get(), shape.FixedBytes());
  std::unique_ptr<SequenceState> state(
      new SequenceState(memory, max_tokens, std::move(fixed)));
  state->pages_ = snapshot.pages;
  if (snapshot.num_tokens % kPageTokens != 0 && !state->pages_.empty()) {
    // Whoever filled it may write on in it.
    StateBlock own = memory->TryTakePage();
    if (own == nullptr) return nullptr;
    std::memcpy(own.get(), state->pages_.back().get(), shape.PageBytes());
    state->pages_.back() = std::move(own);
  }
  for (const StateBlock& page : state->pages_) {
    state->page_data_.push_back(page.get());
  }
  state->num_tokens = snapshot.num_tokens;
  return state;
}

SequenceState::SequenceState(StateMemory* memory, int64_t max_tokens,
                             StateBlock fixed)
    : memory_(memory), max_tokens_(max_tokens), fixed_(std::move(fixed)) {}

bool SequenceState::TryGrow(int64_t tokens) {
  SY_CHECK(tokens <= max_tokens_);
  while (room() < tokens) {
    StateBlock page = memory_->TryTakePage();
    if (page == nullptr) return false;
    page_data_.push_back(page.get());
    pages_.push_back(std::move(page));
  }
  return true;
}

int64_t SequenceState::room() const {
  if (shape().PageFloats() == 0) return max_tokens_;
  return static_cast<int64_t>(pages_.size()) * kPageTokens;
}

float* SequenceState::recurrent(int index) {
  SY_CHECK(index >= 0 && index < shape().num_linear_layers);
  return fixed_.get() + shape().RecurrentInFixed(index);
}

float* SequenceState::conv_tail(int index) {
  SY_CHECK(index >= 0 && index < shape().num_linear_layers);
  return fixed_.get() + shape().ConvTailInFixed(index);
}

float* SequenceState::last_hidden() {
  return fixed_.get() + shape().HiddenInFixed();
}

StateSnapshot SequenceState::TrySnapshot() const {
  SY_CHECK(health == StateHealth::kClean);
  StateBlock fixed = memory_->TryTakeFixed();
  if (fixed == nullptr) return {};
  std::memcpy(fixed.get(), fixed_.get(), shape().FixedBytes());
  return SnapshotAt(num_tokens, std::move(fixed));
}

StateSnapshot SequenceState::SnapshotAt(int64_t tokens,
                                        StateBlock fixed) const {
  SY_CHECK(tokens <= num_tokens);
  StateSnapshot snapshot;
  snapshot.num_tokens = tokens;
  if (shape().PageFloats() > 0) {
    snapshot.pages.assign(pages_.begin(),
                          pages_.begin() + StateShape::PagesFor(tokens));
  }
  snapshot.fixed = std::move(fixed);
  return snapshot;
}

StateSnapshot SequenceState::IntoSnapshot() && {
  SY_CHECK(health == StateHealth::kClean);
  return SnapshotAt(num_tokens, std::move(fixed_));
}

absl::StatusOr<std::unique_ptr<MtpState>> MtpState::Create(
    const StateShape& shape, int64_t max_tokens) {
  SY_CHECK(max_tokens >= 0);
  SY_ASSIGN_OR_RETURN(
      ReservedFloats memory,
      ReservedFloats::Create(
          StateShape::PagesFor(max_tokens) * 2 * kPageTokens * shape.kv_width,
          /*dense_floats=*/0));
  return std::unique_ptr<MtpState>(
      new MtpState(shape, max_tokens, std::move(memory)));
}

MtpState::MtpState(const StateShape& shape, int64_t max_tokens,
                   ReservedFloats memory)
    : max_tokens_(max_tokens), memory_(std::move(memory)) {
  for (int64_t p = 0; p < StateShape::PagesFor(max_tokens); ++p) {
    page_data_.push_back(memory_.data() + p * 2 * kPageTokens * shape.kv_width);
  }
}

}  // namespace switchyard::attention_worker
