// Unnormalised probabilities of a row's entries.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_WEIGHT_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_WEIGHT_H_

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/kernel_table.h"

namespace switchyard::attention_worker {

// e^((logit - max) / temperature): 1 for the greatest logit. When that is
// infinite (either way), the entries equal to it share everything. NaN counts
// as -infinity.
class Weight {
 public:
  // Entries whose weights are found together.
  static constexpr size_t kBlock = 256;

  Weight(float max, double temperature)
      : max_(max),
        inverse_temperature_(static_cast<float>(1 / temperature)),
        finite_(std::isfinite(max)) {}

  float operator()(float logit) const {
    float weight = 0;
    Fill(absl::MakeConstSpan(&logit, 1), absl::MakeSpan(&weight, 1));
    return weight;
  }

  // Of several; returns their sum. REQUIRES: a weight for each logit.
  double Fill(absl::Span<const float> logits, absl::Span<float> weights) const {
    if (finite_) {
      return kernels::Kernels().softmax_weights(
          logits.data(), max_, inverse_temperature_,
          static_cast<int64_t>(logits.size()), weights.data());
    }
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      weights[i] = IsMaximum(logits[i]) ? 1.0f : 0.0f;
      sum += weights[i];
    }
    return sum;
  }

  // Of all entries, block after block, so that every machine adds alike.
  double Sum(absl::Span<const float> logits) const {
    float weights[kBlock];
    double sum = 0;
    for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
      const absl::Span<const float> block = logits.subspan(begin, kBlock);
      sum += Fill(block, absl::MakeSpan(weights, block.size()));
    }
    return sum;
  }

  float max() const { return max_; }
  float inverse_temperature() const { return inverse_temperature_; }

 private:
  // For an infinite maximum. NaN counts as -infinity.
  bool IsMaximum(float logit) const {
    return logit == max_ || (std::isnan(logit) && max_ < 0);
  }

  const float max_;
  const float inverse_temperature_;
  const bool finite_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_WEIGHT_H_
