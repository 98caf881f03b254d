// The geometry of what a sequence keeps, and what it costs.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_STATE_SHAPE_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_STATE_SHAPE_H_

#include <cstdint>

#include "attention_worker/state/state_costs.h"
#include "model/config.h"

namespace switchyard::attention_worker {

// A page holds K and V of this many consecutive tokens, of every layer that has
// a KV cache: attention reads keys in blocks of just so many.
inline constexpr int64_t kPageTokens = 64;

// Two kinds of memory. Pages of the KV cache, which grow with the tokens and
// are shared between sequences with a common beginning:
//   [layer][K, V][kPageTokens][kv_width] floats
// and the fixed part, one for each sequence or snapshot:
//   recurrent states [layer][nv, dk, dv], convolution tails [layer][K - 1,
//   channels], the last token's hidden state [H].
struct StateShape {
  explicit StateShape(const model::ModelConfig& config);

  int num_full_layers = 0;
  int num_linear_layers = 0;
  int64_t kv_width = 0;          // num_key_value_heads * head_dim
  int64_t recurrent_floats = 0;  // nv * dk * dv, one layer
  int64_t conv_floats = 0;       // (K - 1) * (2 * nk * dk + nv * dv), one layer
  int64_t hidden_floats = 0;     // H

  int64_t FixedFloats() const;
  int64_t PageFloats() const;
  int64_t FixedBytes() const;
  int64_t PageBytes() const;

  // Of one token in a page.
  int64_t BytesPerToken() const { return PageBytes() / kPageTokens; }

  // Pages that `tokens` tokens take.
  static int64_t PagesFor(int64_t tokens) {
    return (tokens + kPageTokens - 1) / kPageTokens;
  }
  StateCosts Costs() const {
    return {.fixed_bytes = FixedBytes(),
            .page_bytes = PageBytes(),
            .page_tokens = kPageTokens};
  }

  // Where full-attention layer `index` (counted among full-attention layers)
  // has its [kPageTokens, kv_width] of K or V in a page, in floats.
  int64_t KeysInPage(int index) const {
    return 2 * index * kPageTokens * kv_width;
  }
  int64_t ValuesInPage(int index) const {
    return (2 * index + 1) * kPageTokens * kv_width;
  }
  // Where linear-attention layer `index` (counted among those) has its S and
  // its tail in the fixed part; and where the hidden state is. In floats.
  int64_t RecurrentInFixed(int index) const { return index * recurrent_floats; }
  int64_t ConvTailInFixed(int index) const {
    return num_linear_layers * recurrent_floats + index * conv_floats;
  }
  int64_t HiddenInFixed() const {
    return num_linear_layers * (recurrent_floats + conv_floats);
  }
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_STATE_SHAPE_H_
