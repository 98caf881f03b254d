// FP8 checkpoints as Qwen publishes them: F8_E4M3 matrices with a scale for
// each block of 128x128, beside tensors that stayed BF16.

#ifndef SWITCHYARD_MODEL_CONVERSION_FP8_SOURCE_H_
#define SWITCHYARD_MODEL_CONVERSION_FP8_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/conversion/weight_source.h"

namespace switchyard::model {

// OCP 8-bit E4M3 ("FN"): 1 sign, 4 exponent (bias 7), 3 mantissa bits; no
// infinities, 0x7F and 0xFF are NaN. Exact.
float FloatOfE4M3(uint8_t bits);

// A matrix X of dtype F8_E4M3 goes with "X_scale_inv" [ceil(rows / 128),
// ceil(cols / 128)] (BF16, F16 or F32): weight = value * scale, rounded once to
// f32. INVALID_ARGUMENT: config.json's quantization_config is not that, or a
// scale is missing or has another shape.
absl::StatusOr<std::unique_ptr<WeightSource>> OpenFp8Source(
    const std::string& directory);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_FP8_SOURCE_H_
