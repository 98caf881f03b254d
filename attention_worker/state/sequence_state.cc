#include "attention_worker/state/sequence_state.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace switchyard::attention_worker {
std::unique_ptr<SequenceState> SequenceState::TryMake(StateMemory* memory,
                                                      int64_t max_tokens) {
  StateBlock fixed = memory->TryTakeFixed();
  if (fixed == nullptr) return nullptr;
  StateBlock drafts;
  if (memory->shape().DraftFloats() > 0) {
    drafts = memory->TryTakeDrafts();
    if (drafts == nullptr) return nullptr;
  }
  return std::unique_ptr<SequenceState>(new SequenceState(
      memory, max_tokens, std::move(fixed), std::move(drafts)));
}

std::unique_ptr<SequenceState> SequenceState::TryCreate(StateMemory* memory,
                                                        int64_t max_tokens) {
  SY_CHECK(max_tokens >= 0);
  std::unique_ptr<SequenceState> state = TryMake(memory, max_tokens);
  if (state == nullptr) return nullptr;
  std::fill_n(state->fixed_.get(), memory->shape().FixedFloats(), 0.0f);
  return state;
}

std::unique_ptr<SequenceState> SequenceState::TryRestore(
    StateMemory* memory, const StateSnapshot& snapshot, int64_t max_tokens) {
  SY_CHECK(snapshot.num_tokens <= max_tokens);
  const StateShape& shape = memory->shape();
  std::unique_ptr<SequenceState> state = TryMake(memory, max_tokens);
  if (state == nullptr) return nullptr;
  std::memcpy(state->fixed_.get(), snapshot.fixed.get(), shape.FixedBytes());
  state->pages_ = snapshot.pages;
  const bool last_is_full = snapshot.num_tokens % kPageTokens == 0;
  if (!state->pages_.empty() && (!last_is_full || shape.drafts())) {
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
  if (shape.drafts() && snapshot.num_tokens > 0) {
    state->num_mtp_pairs = snapshot.num_tokens - 1;
    // Pairs of the page's former owner, who went on another way.
    for (int64_t pair = state->num_mtp_pairs; pair < state->room(); ++pair) {
      state->ClearMtpPair(pair);
    }
  }
  return state;
}

SequenceState::SequenceState(StateMemory* memory, int64_t max_tokens,
                             StateBlock fixed, StateBlock drafts)
    : memory_(memory),
      max_tokens_(max_tokens),
      fixed_(std::move(fixed)),
      drafts_(std::move(drafts)) {}

bool SequenceState::TryGrow(int64_t tokens) {
  SY_CHECK(tokens <= max_tokens_);
  while (room() < tokens) {
    StateBlock page = memory_->TryTakePage();
    if (page == nullptr) return false;
    AddPage(std::move(page));
  }
  return true;
}

void SequenceState::AddPage(StateBlock page) {
  if (shape().drafts()) {
    // Pairs that nobody ran through the MTP head (while it did not pay to
    // draft) read as zeros, not as what another sequence left.
    const KvLayout& kv = shape().kv;
    std::memset(reinterpret_cast<uint8_t*>(page.get()) +
                    kv.KeyInPage(shape().num_full_layers, 0, 0),
                0, static_cast<size_t>(kv.LayerBytes()));
  }
  page_data_.push_back(page.get());
  pages_.push_back(std::move(page));
}

void SequenceState::Shrink(int64_t tokens) {
  SY_CHECK(tokens >= num_tokens);
  const size_t pages = static_cast<size_t>(StateShape::PagesFor(tokens));
  if (pages >= pages_.size()) return;
  pages_.resize(pages);
  page_data_.resize(pages);
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

float* SequenceState::draft_rows(int index) {
  SY_CHECK(index >= 0 && index < shape().num_linear_layers);
  return drafts_ == nullptr ? nullptr
                            : drafts_.get() + shape().LayerInDrafts(index);
}

void SequenceState::SkipMtpPairs(int64_t pairs) {
  SY_CHECK(shape().drafts() && pairs >= num_mtp_pairs && pairs <= room());
  while (num_mtp_pairs < pairs) ClearMtpPair(num_mtp_pairs++);
}

void SequenceState::ClearMtpPair(int64_t pair) {
  // Zero bytes are zeros in every dtype.
  const KvLayer kv = {page_data_, shape().kv, shape().num_full_layers};
  const auto row_bytes = static_cast<size_t>(kv.layout.RowBytes());
  for (int64_t head = 0; head < kv.layout.num_kv_heads; ++head) {
    std::memset(kv.KeyAt(pair, head), 0, row_bytes);
    std::memset(kv.ValueAt(pair, head), 0, row_bytes);
  }
}

void SequenceState::AcceptDrafts(int64_t tokens, const float* hidden) {
  SY_CHECK(health == StateHealth::kClean && pending_tokens == 0);
  SY_CHECK(tokens >= 0 && tokens <= shape().max_draft_tokens);
  if (tokens == 0) return;
  SY_CHECK(num_tokens + tokens <= std::min(max_tokens_, room()));
  num_tokens += tokens;
  pending_tokens = tokens;
  std::copy_n(hidden, shape().hidden_floats, last_hidden());
}

StateSnapshot SequenceState::TrySnapshot() const {
  SY_CHECK(health == StateHealth::kClean && pending_tokens == 0);
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
  SY_CHECK(health == StateHealth::kClean && pending_tokens == 0);
  return SnapshotAt(num_tokens, std::move(fixed_));
}

}  // namespace switchyard::attention_worker
