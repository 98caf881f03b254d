// The geometry of what a sequence keeps, and what it costs.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_STATE_SHAPE_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_STATE_SHAPE_H_

#include <cstdint>

#include "attention_worker/state/kv_layout.h"
#include "attention_worker/state/state_costs.h"
#include "model/config.h"

namespace switchyard::attention_worker {

// Three kinds of memory. Pages of the KV cache (kv_layout.h), which grow with
// the tokens and are shared between sequences with a common beginning, the MTP
// head's layer last if there are drafts; the fixed part, one for each sequence
// or snapshot, in floats:
//   recurrent states [layer][nv, dk, dv], convolution tails [layer][K - 1,
//   channels], the last token's hidden state [H];
// and, if there are drafts, one part for each running sequence:
//   what drafted tokens brought to each linear-attention layer [layer]
//   [max_draft_tokens][channels | decay, beta: 2 nv].
struct StateShape {
  // `max_draft_tokens`: of one step of one sequence; 0: nobody drafts.
  explicit StateShape(const model::ModelConfig& config,
                      int64_t max_draft_tokens = 0,
                      kernels::KvDType kv_dtype = kernels::KvDType::kF32);

  int num_full_layers = 0;  // without the MTP head's
  int num_linear_layers = 0;
  int64_t max_draft_tokens = 0;
  // Of the full-attention layers, counted among those, and behind them
  // (num_full_layers) the MTP head's.
  KvLayout kv;
  int64_t recurrent_floats = 0;  // nv * dk * dv, one layer
  int64_t conv_channels = 0;     // 2 * nk * dk + nv * dv
  int64_t conv_floats = 0;       // (K - 1) * channels, one layer
  int64_t gate_floats = 0;       // 2 * nv: decay and beta of a token, one layer
  int64_t hidden_floats = 0;     // H

  bool drafts() const { return max_draft_tokens > 0; }
  int num_kv_layers() const { return num_full_layers + (drafts() ? 1 : 0); }

  int64_t FixedFloats() const;
  int64_t PageFloats() const;  // PageBytes() in floats
  int64_t DraftFloats() const;
  int64_t FixedBytes() const;
  int64_t PageBytes() const;
  int64_t DraftBytes() const;

  // Of one token in a page.
  int64_t BytesPerToken() const { return PageBytes() / kPageTokens; }

  // Pages that `tokens` tokens take.
  static int64_t PagesFor(int64_t tokens) {
    return (tokens + kPageTokens - 1) / kPageTokens;
  }
  // Of a running sequence.
  StateCosts Costs() const {
    return {.fixed_bytes = FixedBytes() + DraftBytes(),
            .page_bytes = PageBytes(),
            .page_tokens = kPageTokens};
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
  // A drafted token's part of the draft part of linear-attention layer `index`.
  int64_t DraftRowFloats() const { return conv_channels + gate_floats; }
  int64_t LayerInDrafts(int index) const {
    return index * max_draft_tokens * DraftRowFloats();
  }
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_STATE_SHAPE_H_
