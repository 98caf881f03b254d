// Weights by dice: a model of any geometry, for measurements.

#ifndef SWITCHYARD_MODEL_CONVERSION_RANDOM_SOURCE_H_
#define SWITCHYARD_MODEL_CONVERSION_RANDOM_SOURCE_H_

#include <cstdint>
#include <memory>

#include "model/config.h"
#include "model/conversion/weight_source.h"

namespace switchyard::model {

// bf16 weights of a scale at which activations stay of order one: matrices
// normal with variance 1 / fan-in, zero-centred norms 0, the gated norm 1, A
// and dt in the range that the architecture starts from. The same seed and
// config give the same weights on every machine.
//
// Fast rather than random: there is one table of 2^20 normal numbers, and a row
// of a matrix is a stretch of it that begins at a place of the row's own. Good
// for time and memory, which do not depend on values, and for routing that
// differs from token to token; no statement about accuracy can be made with it.
std::unique_ptr<WeightSource> NewRandomSource(const ModelConfig& config,
                                              bool with_mtp, uint64_t seed);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_RANDOM_SOURCE_H_
