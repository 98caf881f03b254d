// Everything that one sequence has accumulated: KV cache of the full-attention
// layers, recurrent state and convolution tail of the linear-attention layers;
// and, apart from it, the KV cache of the MTP layer.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_SEQUENCE_STATE_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_SEQUENCE_STATE_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "attention_worker/state/reserved_floats.h"
#include "model/config.h"

namespace switchyard::attention_worker {

// The geometry of states, and what they cost.
struct StateShape {
  explicit StateShape(const model::ModelConfig& config);

  int num_full_layers = 0;
  int num_linear_layers = 0;
  int64_t kv_width = 0;          // num_key_value_heads * head_dim
  int64_t recurrent_floats = 0;  // nv * dk * dv, one layer
  int64_t conv_floats = 0;       // (K - 1) * (2 * nk * dk + nv * dv), one layer

  int64_t FixedBytes() const;     // recurrent and convolution state
  int64_t BytesPerToken() const;  // KV, all full-attention layers
  // What a sequence of `tokens` costs in all, fp32. Not counted: the unused
  // rest of the last memory page of each K and V (4 KiB at most, twice a full
  // layer).
  int64_t BytesFor(int64_t tokens) const;
};

// A sequence's state is kClean between steps. A step that failed part-way has
// moved some layers' recurrent state, which cannot be cut back: the state is
// then kTorn, and may only be thrown away (or rebuilt from the token ids).
enum class StateHealth { kClean, kTorn };

// Owned by the step thread; not thread-safe. Reserves address space for
// `max_tokens` at once, and takes memory for the tokens that it really holds,
// as they come.
class SequenceState {
 public:
  // Zeroed; room for `max_tokens` in the KV cache. RESOURCE_EXHAUSTED: the
  // address space is not to be had (ReservedFloats::Create).
  static absl::StatusOr<std::unique_ptr<SequenceState>> Create(
      const StateShape& shape, int64_t max_tokens);
  // As Create, for callers that cannot go on without.
  SequenceState(const StateShape& shape, int64_t max_tokens);

  StateHealth health = StateHealth::kClean;
  int64_t num_tokens = 0;  // processed; the next token's position

  int64_t max_tokens() const { return max_tokens_; }

  // K and V of full-attention layer `index` (counted among full-attention
  // layers): [max_tokens, kv_width] each, head-major within a row. K is stored
  // after norm and RoPE.
  float* keys(int index);
  float* values(int index);
  // S of linear-attention layer `index`: [nv, dk, dv].
  float* recurrent(int index);
  // The last K - 1 inputs of the convolution, oldest first: [K - 1, channels].
  float* conv_tail(int index);

  // Bytes in memory now; slow, for tests and reports.
  int64_t ResidentBytes() const { return memory_.ResidentBytes(); }

 private:
  SequenceState(const StateShape& shape, int64_t max_tokens,
                ReservedFloats memory);

  StateShape shape_;
  int64_t max_tokens_;
  // Every layer's S, every layer's tail, then every full layer's K and V.
  ReservedFloats memory_;
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
  float* keys() { return memory_.data(); }  // [max_tokens, kv_width]
  float* values() { return memory_.data() + memory_.size() / 2; }

 private:
  MtpState(int64_t max_tokens, ReservedFloats memory);

  int64_t max_tokens_;
  ReservedFloats memory_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_SEQUENCE_STATE_H_
