#include "attention_worker/layers/rope_table.h"

#include <cmath>
#include <cstddef>

#include "model/rope_frequencies.h"

namespace switchyard::attention_worker {

RopeTable RopeTable::ForConfig(const model::ModelConfig& config) {
  const model::RopeFrequencies frequencies =
      model::ComputeRopeFrequencies(config);
  return RopeTable(std::vector<float>(frequencies.inv_freq.begin(),
                                      frequencies.inv_freq.end()),
                   static_cast<float>(frequencies.attention_factor));
}

void RopeTable::SetRows(absl::Span<const LayerSequence> sequences,
                        int64_t rows) {
  const int64_t n = half_dim();
  cos_.resize(rows * n);
  sin_.resize(rows * n);
  for (const LayerSequence& sequence : sequences) {
    for (int64_t t = 0; t < sequence.num_rows; ++t) {
      const float position = static_cast<float>(sequence.first_position + t);
      const size_t row = (sequence.first_row + t) * n;
      for (int64_t i = 0; i < n; ++i) {
        const double angle = double{position * inv_freq_[i]};
        cos_[row + i] = static_cast<float>(std::cos(angle)) * attention_factor_;
        sin_[row + i] = static_cast<float>(std::sin(angle)) * attention_factor_;
      }
    }
  }
}

}  // namespace switchyard::attention_worker
