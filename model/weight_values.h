// The values of weights, whatever their dtype.

#ifndef SWITCHYARD_MODEL_WEIGHT_VALUES_H_
#define SWITCHYARD_MODEL_WEIGHT_VALUES_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "kernels/matrix.h"
#include "kernels/quantized.h"

namespace switchyard::model {

// out[i] = the i-th weight, exactly (quantised: q * scale, rounded); out has
// rows * cols floats.
void WidenWeights(const kernels::WeightView& weights, float* out);

// How many weights (quantised: scales) are NaN or infinite: a trained model has
// none, so one means a damaged file. Reads every byte, so it also brings the
// pages into memory.
int64_t CountNonFinite(const kernels::WeightView& weights);

// "BF16", "F16", "F32": safetensors' spelling; "Q8", "Q4", "BF16DOT".
absl::string_view DTypeName(kernels::DType dtype);

// What a file calls a tensor that is not quantised: kBF16 for kBF16Dot.
inline kernels::DType FileDType(kernels::DType dtype) {
  return dtype == kernels::DType::kBF16Dot ? kernels::DType::kBF16 : dtype;
}

inline int64_t WeightBytes(const kernels::WeightView& weights) {
  return kernels::WeightBytes(weights.dtype, weights.rows, weights.cols);
}

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_WEIGHT_VALUES_H_
