#include "model/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace switchyard::model {
namespace {

// The (fractional) dimension whose pair turns `rotations` times within the
// original context.
double YarnDimension(const RopeParameters& rope, int rotary_dim,
                     double rotations) {
  const double original =
      static_cast<double>(rope.original_max_position_embeddings);
  return rotary_dim * std::log(original / (2 * std::numbers::pi * rotations)) /
         (2 * std::log(rope.theta));
}

// Fast pairs (below the ramp) keep their frequency, slow ones (above it) are
// slowed by `factor`, those between are blended.
void ApplyYarn(const RopeParameters& rope, int rotary_dim,
               std::vector<double>* inv_freq) {
  double low = YarnDimension(rope, rotary_dim, rope.beta_fast);
  double high = YarnDimension(rope, rotary_dim, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rotary_dim - 1.0);
  // As the reference does it, so that the ramp's slope is finite.
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inv_freq->size(); ++i) {
    const double ramp =
        std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    double& f = (*inv_freq)[i];
    f = f * (1 - ramp) + f / rope.factor * ramp;
  }
}

}  // namespace

RopeFrequencies ComputeRopeFrequencies(const ModelConfig& config) {
  const int rotary_dim = config.rotary_dim();
  RopeFrequencies result;
  for (int i = 0; i < rotary_dim; i += 2) {
    result.inv_freq.push_back(
        std::pow(config.rope.theta, -static_cast<double>(i) / rotary_dim));
  }
  if (config.rope.yarn) {
    ApplyYarn(config.rope, rotary_dim, &result.inv_freq);
    result.attention_factor = config.rope.attention_factor;
  }
  return result;
}

}  // namespace switchyard::model
