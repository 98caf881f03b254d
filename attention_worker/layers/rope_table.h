// Cosines and sines of a step's positions (Su et al. 2021), one set for all its
// full-attention layers.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_ROPE_TABLE_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_ROPE_TABLE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "model/config.h"

namespace switchyard::attention_worker {

// n = rotary_dim / 2 angles a row.
class RopeTable {
 public:
  static RopeTable ForConfig(const model::ModelConfig& config);

  // Inverse frequencies [n], and the factor on cosine and sine (1 without
  // YaRN).
  RopeTable(std::vector<float> inv_freq, float attention_factor)
      : inv_freq_(std::move(inv_freq)), attention_factor_(attention_factor) {}

  // Computes the rows of these sequences, which cover [0, rows).
  // The angle is the float product position * inv_freq, as the model was
  // trained; its cosine and sine are taken in double and rounded, so that they
  // do not depend on the C library's float functions.
  void SetRows(absl::Span<const LayerSequence> sequences, int64_t rows);

  int64_t half_dim() const { return static_cast<int64_t>(inv_freq_.size()); }
  const float* cos(int64_t row) const { return &cos_[row * half_dim()]; }
  const float* sin(int64_t row) const { return &sin_[row * half_dim()]; }

 private:
  const std::vector<float> inv_freq_;
  const float attention_factor_;
  std::vector<float> cos_;  // [rows, n]
  std::vector<float> sin_;  // [rows, n]
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_ROPE_TABLE_H_
