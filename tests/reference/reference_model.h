// The whole model in plain, slow, obvious C++: the definition that the product
// is tested against. Doubles, one loop a formula, no kernels, no caches, no
// threads: a run always starts at position 0. Shares nothing with the product
// but the reading of checkpoints.

#ifndef SWITCHYARD_TESTS_REFERENCE_REFERENCE_MODEL_H_
#define SWITCHYARD_TESTS_REFERENCE_REFERENCE_MODEL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "model/checkpoint.h"

namespace switchyard::testing {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

// What one attention layer, linear layer or gate did.
struct ReferenceCache {
  Rows keys;    // [T][kv heads * head_dim], after norm and RoPE
  Rows values;  // [T][kv heads * head_dim]
};
struct ReferenceLinearState {
  std::vector<Rows> recurrent;  // [nv][dk][dv], after the last token
  Rows conv_tail;               // [K - 1][channels], oldest first
};
struct ReferenceGate {
  Rows logits;                                // [T][E]
  std::vector<std::vector<int32_t>> experts;  // [T][K], descending
  Rows weights;                               // [T][K]
};

struct ReferenceRun {
  Rows embedding;               // [T][H]
  std::vector<Rows> layer;      // [L][T][H], residual stream after each layer
  std::vector<Rows> mixer_out;  // [L][T][H]
  std::vector<Rows> mlp_out;    // [L][T][H]
  std::vector<ReferenceGate> gate;           // [L]; empty for dense layers
  std::vector<ReferenceCache> full;          // full-attention layers only
  std::vector<ReferenceLinearState> linear;  // linear-attention layers only
  Rows final_hidden;                         // [T][H]
  Rows logits;                               // [T][V]
};

struct ReferenceMtpRun {
  Rows hidden;  // [pairs][H], after mtp.norm
  Rows logits;  // [pairs][V]
  ReferenceCache cache;
};

class ReferenceModel {
 public:
  // `checkpoint` is not owned and outlives this.
  explicit ReferenceModel(const model::Checkpoint* checkpoint)
      : checkpoint_(*checkpoint), config_(checkpoint->config()) {}

  ReferenceRun Run(absl::Span<const int32_t> tokens) const;

  // The MTP head on pairs (hidden[i], next_tokens[i]) at positions 0, 1, ...
  ReferenceMtpRun RunMtp(const Rows& hidden,
                         absl::Span<const int32_t> next_tokens) const;

 private:
  const model::Checkpoint& checkpoint_;
  const model::ModelConfig& config_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_REFERENCE_REFERENCE_MODEL_H_
