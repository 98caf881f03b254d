// Unnormalised probabilities of a row's entries.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_WEIGHT_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_WEIGHT_H_

#include <algorithm>
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
  Weight(float max, double temperature)
      : max_(max), temperature_(temperature), finite_(std::isfinite(max)) {}

  double operator()(float logit) const {
    double weight = 0;
    Fill(absl::MakeConstSpan(&logit, 1), absl::MakeSpan(&weight, 1));
    return weight;
  }

  // Of several. REQUIRES: a weight for each logit.
  void Fill(absl::Span<const float> logits, absl::Span<double> weights) const {
    if (finite_) {
      kernels::Kernels().softmax_weights(logits.data(), max_, temperature_,
                                         static_cast<int64_t>(logits.size()),
                                         weights.data());
      return;
    }
    std::transform(
        logits.begin(), logits.end(), weights.begin(),
        [this](float logit) { return IsMaximum(logit) ? 1.0 : 0.0; });
  }

  // Of all entries, added in index order so that every machine adds alike.
  double Sum(absl::Span<const float> logits) const {
    constexpr size_t kBlock = 256;
    double block[kBlock];
    double sum = 0;
    for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
      const size_t n = std::min(kBlock, logits.size() - begin);
      Fill(logits.subspan(begin, n), absl::MakeSpan(block, n));
      for (size_t i = 0; i < n; ++i) sum += block[i];
    }
    return sum;
  }

 private:
  // For an infinite maximum. NaN counts as -infinity.
  bool IsMaximum(float logit) const {
    return logit == max_ || (std::isnan(logit) && max_ < 0);
  }

  const float max_;
  const double temperature_;
  const bool finite_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_WEIGHT_H_
