// The rotary frequencies of a config, YaRN applied: what transformers calls
// inv_freq and attention_scaling.

#ifndef SWITCHYARD_MODEL_ROPE_FREQUENCIES_H_
#define SWITCHYARD_MODEL_ROPE_FREQUENCIES_H_

#include <vector>

#include "model/config.h"

namespace switchyard::model {

struct RopeFrequencies {
  // [rotary_dim / 2]; the angle of pair i at position p is p * inv_freq[i].
  std::vector<double> inv_freq;
  // Multiplies every cos and sin; 1 without YaRN.
  double attention_factor = 1;
};

// The same table serves the main layers and the MTP layer.
RopeFrequencies ComputeRopeFrequencies(const ModelConfig& config);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_ROPE_FREQUENCIES_H_
