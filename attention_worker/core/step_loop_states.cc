// The part of the step loop that gives sequences their states, and keeps what
// they leave.

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/core/snapshot_points.h"
#include "attention_worker/core/step_loop.h"
#include "base/check.h"
#include "base/log.h"

namespace switchyard::attention_worker {

void StepLoop::GiveState(LiveSequence* sequence) {
  sequence->state = RestoreOrCreate(sequence);
  // The plan says that what runs fits, and all else can be evicted.
  SY_CHECK(sequence->state != nullptr);
  sequence->phase = SequencePhase::kPrefill;
  ++running_;
}

std::unique_ptr<SequenceState> StepLoop::RestoreOrCreate(
    LiveSequence* sequence) {
  // The last token of a sequence is never read, so it needs no room.
  const int64_t max_tokens = sequence->max_tokens() - 1;
  PrefixCache::Match match;
  if (options_.prefix_caching) {
    match = cache_.Find(sequence->RestorablePrefix());
  }
  if (options_.prefix_caching && options_.store != nullptr) {
    const int64_t cached = match.snapshot.num_tokens;
    match = {};  // not held while others are evicted
    LoadFromDisk(sequence->RestorablePrefix(), cached);
    match = cache_.Find(sequence->RestorablePrefix());
  }
  std::unique_ptr<SequenceState> state;
  while (state == nullptr && match.snapshot.fixed != nullptr) {
    state =
        SequenceState::TryRestore(options_.memory, match.snapshot, max_tokens);
    // What is matched cannot be freed while it is held here.
    if (state == nullptr && !EvictOne()) match.snapshot = {};
  }
  while (state == nullptr) {
    state = SequenceState::TryCreate(options_.memory, max_tokens);
    if (state == nullptr && !EvictOne()) return nullptr;
  }
  sequence->snapshot_points.clear();
  if (options_.prefix_caching) {
    sequence->snapshot_points = SnapshotPoints(
        state->num_tokens, match.common_tokens, sequence->known_tokens(),
        sequence->request.prefix_boundaries);
  }
  return state;
}

void StepLoop::LoadFromDisk(const Prefix& prefix, int64_t cached_tokens) {
  const int64_t kept = options_.store->LongestPrefix(prefix);
  if (kept < cached_tokens + kMinTokensOnDisk) return;
  absl::StatusOr<StateSnapshot> loaded = options_.store->Load(
      prefix.first(kept),
      [this] { return TakeEvicting(&StateMemory::TryTakeFixed); },
      [this] { return TakeEvicting(&StateMemory::TryTakePage); });
  if (loaded.ok()) {
    cache_.Insert(prefix.first(kept), *std::move(loaded));
  } else {
    LogWarning(absl::StrCat("a kept state is not used, its tokens are read: ",
                            loaded.status().ToString()));
  }
}

StateBlock StepLoop::TakeEvicting(StateBlock (StateMemory::*take)()) {
  StateBlock block = (options_.memory->*take)();
  while (block == nullptr && EvictOne()) {
    block = (options_.memory->*take)();
  }
  return block;
}

void StepLoop::Grow(SequenceState* state, int64_t tokens) {
  while (!state->TryGrow(tokens)) SY_CHECK(EvictOne());
}

absl::StatusOr<KeptPrefix> StepLoop::EndAndKeep(const std::string& id) {
  for (const auto& sequence : sequences_) {
    if (sequence->request.id != id) continue;
    if (sequence->state == nullptr || sequence->state->num_tokens == 0) {
      return absl::NotFoundError(
          absl::StrCat("the request ", id, " has no state yet"));
    }
    KeptPrefix kept(sequence->FirstTokens(sequence->state->num_tokens));
    Finish(sequence.get(),
           absl::UnavailableError(
               "the request is handed over to another attention worker"),
           FinishReason::kStop, options_.clock->Now());
    RemoveFinished();
    ReportLoad();
    return kept;
  }
  return absl::NotFoundError(
      absl::StrCat("no request with the id ", id, " runs here"));
}

void StepLoop::SettlePairs(SequenceState* state, int64_t tokens) const {
  if (drafts_.enabled() && state->num_mtp_pairs < tokens - 1) {
    state->SkipMtpPairs(tokens - 1);
  }
}

void StepLoop::KeepOrRelease(LiveSequence* sequence) {
  SequenceState* const state = sequence->state.get();
  if (state == nullptr) return;
  if (options_.prefix_caching && state->health == StateHealth::kClean &&
      state->num_tokens > 0) {
    const Prefix prefix = sequence->FirstTokens(state->num_tokens);
    if (!cache_.Contains(prefix)) {
      options_.runner->Settle(absl::MakeConstSpan(&state, 1));
      SettlePairs(state, state->num_tokens);
      StateSnapshot snapshot = std::move(*state).IntoSnapshot();
      if (options_.store != nullptr &&
          snapshot.num_tokens >= kMinTokensOnDisk) {
        options_.store->SaveLater(prefix, snapshot);
      }
      cache_.Insert(prefix, std::move(snapshot));
    }
  }
  ReleaseState(sequence);
}

void StepLoop::ReleaseState(LiveSequence* sequence) {
  if (sequence->state == nullptr) return;
  sequence->state.reset();
  sequence->drafts.clear();
  --running_;
  state_bytes_used_ -= sequence->charged_bytes;
  sequence->charged_bytes = 0;
  SY_CHECK(running_ >= 0 && state_bytes_used_ >= 0);
}

}  // namespace switchyard::attention_worker
