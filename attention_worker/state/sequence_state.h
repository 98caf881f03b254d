// Everything that one sequence has accumulated: KV cache of the full-attention
// layers (and of the MTP head's), recurrent state and convolution tail of the
// linear-attention layers.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_SEQUENCE_STATE_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_SEQUENCE_STATE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "attention_worker/state/state_memory.h"
#include "attention_worker/state/state_shape.h"

namespace switchyard::attention_worker {

// A sequence's state is kClean between steps. A step that failed part-way has
// moved some layers' recurrent state, which cannot be cut back: the state is
// then kTorn, and may only be thrown away (or rebuilt from the token ids).
enum class StateHealth { kClean, kTorn };

// What a sequence had accumulated after `num_tokens` tokens. A value: copies
// share the memory, which nobody changes (of the last page, if it is not full,
// the sequence that filled it writes the rest).
struct StateSnapshot {
  int64_t num_tokens = 0;
  std::vector<StateBlock> pages;  // StateShape::PagesFor(num_tokens)
  StateBlock fixed;
};

// Drafts. A step may read tokens that may turn out wrong: provisional ones, at
// the end of its chunk. They leave K and V, which the next step overwrites or
// not; recurrent states and tails they do not touch. Their inputs to the
// recurrence are kept, and those of tokens that were accepted are "pending":
// the next step that reads the state takes them in first, in the one pass over
// the state that it makes anyway. So a rejected token costs no copy, nor an
// accepted one.
//
// Owned by the step thread; not thread-safe.
class SequenceState {
 public:
  // Zeroed; nothing read. Null if `memory`, which outlives this, has no room
  // for the fixed part and, if there are drafts, theirs.
  static std::unique_ptr<SequenceState> TryCreate(StateMemory* memory,
                                                  int64_t max_tokens);
  // Goes on from `snapshot`: shares its full pages, copies the rest. (With an
  // MTP head the last page, full or not: its last pair belongs to whoever goes
  // on.) Null if `memory` has no room for that. REQUIRES: snapshot.num_tokens
  // <= max_tokens, and its blocks are of `memory`.
  static std::unique_ptr<SequenceState> TryRestore(
      StateMemory* memory, const StateSnapshot& snapshot, int64_t max_tokens);

  StateHealth health = StateHealth::kClean;
  int64_t num_tokens = 0;  // processed; the next token's position
  // Of num_tokens the last ones, which the recurrent states and tails still
  // lack: [0, max_draft_tokens].
  int64_t pending_tokens = 0;
  // Pairs that the MTP head has read; pair i is token i's hidden state and
  // token i + 1. May be set back: later ones are then overwritten.
  int64_t num_mtp_pairs = 0;

  int64_t max_tokens() const { return max_tokens_; }
  const StateShape& shape() const { return memory_->shape(); }

  // Sees to pages for `tokens` tokens in all. False if the budget has no room;
  // what could be had is kept. REQUIRES: tokens <= max_tokens().
  bool TryGrow(int64_t tokens);
  // Gives back pages that `tokens` >= num_tokens tokens do not need.
  void Shrink(int64_t tokens);
  // Tokens that there are pages for.
  int64_t room() const;

  // K and V after norm and RoPE, as StateShape::kv lays them out. Grow() may
  // move the span, not the pages.
  absl::Span<float* const> pages() const { return page_data_; }
  // S of linear-attention layer `index`: [nv, dk, dv].
  float* recurrent(int index);
  // The last K - 1 inputs of the convolution, oldest first: [K - 1, channels].
  float* conv_tail(int index);
  // Of the last token, after model.norm: [H]. Anything before the first.
  float* last_hidden();
  // The MTP head goes on at pair `pairs` >= num_mtp_pairs; those between, which
  // it will not read, are zeros from here on, not what rejected drafts left.
  // REQUIRES: drafts; pages for them.
  void SkipMtpPairs(int64_t pairs);
  // What provisional tokens brought to linear-attention layer `index`:
  // [max_draft_tokens, conv_channels + gate_floats], StateShape::DraftFloats().
  // Null without drafts.
  float* draft_rows(int index);

  // The first `tokens` of the last step's provisional ones belong to the
  // sequence; `hidden` [H] is of the last of them (unused if there are none).
  void AcceptDrafts(int64_t tokens, const float* hidden);

  // What it holds now, copied where it will change. Null `fixed` if the budget
  // has no room for the copy. REQUIRES: kClean, nothing pending.
  StateSnapshot TrySnapshot() const;
  // As it was after `tokens` <= num_tokens tokens, given the fixed part of that
  // moment.
  StateSnapshot SnapshotAt(int64_t tokens, StateBlock fixed) const;
  // The same without a copy, for a state that nobody continues.
  // REQUIRES: kClean, nothing pending.
  StateSnapshot IntoSnapshot() &&;

 private:
  SequenceState(StateMemory* memory, int64_t max_tokens, StateBlock fixed,
                StateBlock drafts);
  // Both blocks, or null.
  static std::unique_ptr<SequenceState> TryMake(StateMemory* memory,
                                                int64_t max_tokens);
  void AddPage(StateBlock page);
  void ClearMtpPair(int64_t pair);

  StateMemory* const memory_;
  const int64_t max_tokens_;
  StateBlock fixed_;
  StateBlock drafts_;  // null without drafts
  std::vector<StateBlock> pages_;
  std::vector<float*> page_data_;  // of pages_
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_SEQUENCE_STATE_H_
