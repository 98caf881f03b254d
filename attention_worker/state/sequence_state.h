// Everything that one sequence has accumulated: KV cache of the full-attention
// layers, recurrent state and convolution tail of the linear-attention layers;
// and, apart from it, the KV cache of the MTP layer.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_SEQUENCE_STATE_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_SEQUENCE_STATE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "attention_worker/state/reserved_floats.h"
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

// Owned by the step thread; not thread-safe.
class SequenceState {
 public:
  // Zeroed; nothing read. Null if `memory`, which outlives this, has no room
  // for the fixed part.
  static std::unique_ptr<SequenceState> TryCreate(StateMemory* memory,
                                                  int64_t max_tokens);
  // Goes on from `snapshot`: shares its full pages, copies the rest. Null if
  // `memory` has no room for that. REQUIRES: snapshot.num_tokens <= max_tokens,
  // and its blocks are of `memory`.
  static std::unique_ptr<SequenceState> TryRestore(
      StateMemory* memory, const StateSnapshot& snapshot, int64_t max_tokens);

  StateHealth health = StateHealth::kClean;
  int64_t num_tokens = 0;  // processed; the next token's position

  int64_t max_tokens() const { return max_tokens_; }
  const StateShape& shape() const { return memory_->shape(); }

  // Sees to pages for `tokens` tokens in all. False if the budget has no room;
  // what could be had is kept. REQUIRES: tokens <= max_tokens().
  bool TryGrow(int64_t tokens);
  // Tokens that there are pages for.
  int64_t room() const;

  // K and V after norm and RoPE: token t is row t % kPageTokens of
  // pages()[t / kPageTokens], at StateShape::KeysInPage and ValuesInPage.
  // Grow() may move the span, not the pages.
  absl::Span<float* const> pages() const { return page_data_; }
  // S of linear-attention layer `index`: [nv, dk, dv].
  float* recurrent(int index);
  // The last K - 1 inputs of the convolution, oldest first: [K - 1, channels].
  float* conv_tail(int index);
  // Of the last token, after model.norm: [H]. Anything before the first.
  float* last_hidden();

  // What it holds now, copied where it will change. Null `fixed` if the budget
  // has no room for the copy. REQUIRES: kClean.
  StateSnapshot TrySnapshot() const;
  // As it was after `tokens` <= num_tokens tokens, given the fixed part of that
  // moment.
  StateSnapshot SnapshotAt(int64_t tokens, StateBlock fixed) const;
  // The same without a copy, for a state that nobody continues.
  StateSnapshot IntoSnapshot() &&;

 private:
  SequenceState(StateMemory* memory, int64_t max_tokens, StateBlock fixed);

  StateMemory* const memory_;
  const int64_t max_tokens_;
  StateBlock fixed_;
  std::vector<StateBlock> pages_;
  std::vector<float*> page_data_;  // of pages_
};

// The KV cache of the MTP layer of one sequence: pair i (hidden state i, token
// i + 1) at position i. Unlike a recurrent state it can be cut back: entries
// that rest on rejected drafts are dropped by setting num_tokens. As
// SequenceState in everything else.
class MtpState {
 public:
  static absl::StatusOr<std::unique_ptr<MtpState>> Create(
      const StateShape& shape, int64_t max_tokens);

  StateHealth health = StateHealth::kClean;
  int64_t num_tokens = 0;  // pairs processed; the next pair's position

  int64_t max_tokens() const { return max_tokens_; }
  // Pages of kPageTokens rows of K, then V: [2, kPageTokens, kv_width].
  absl::Span<float* const> pages() const { return page_data_; }

 private:
  MtpState(const StateShape& shape, int64_t max_tokens, ReservedFloats memory);

  int64_t max_tokens_;
  ReservedFloats memory_;
  std::vector<float*> page_data_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_SEQUENCE_STATE_H_
