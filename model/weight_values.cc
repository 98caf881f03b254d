#include "model/weight_values.h"

#include <bit>
#include <cstring>

#include "base/check.h"
#include "kernels/half.h"
#include "kernels/quantized.h"
#include "kernels/weight_codec.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using kernels::WeightView;

// Weights lie at any even address: always through memcpy.
template <typename Bits>
Bits LoadBits(const void* data, int64_t index) {
  Bits bits;
  std::memcpy(&bits, static_cast<const char*>(data) + index * sizeof(Bits),
              sizeof(Bits));
  return bits;
}

float Bf16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

// An all-ones exponent is infinity or NaN in every IEEE format.
template <typename Bits>
int64_t CountAllOnesExponents(const WeightView& weights, Bits exponent_mask) {
  const int64_t n = weights.rows * weights.cols;
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Bits bits = LoadBits<Bits>(weights.data, i);
    count += (bits & exponent_mask) == exponent_mask;
  }
  return count;
}

// Only a scale can be infinite or NaN.
int64_t CountNonFiniteScales(const WeightView& weights) {
  const uint8_t* block = static_cast<const uint8_t*>(weights.data);
  const uint8_t* const end =
      block + kernels::WeightBytes(weights.dtype, weights.rows, weights.cols);
  const WeightView scales = {nullptr, DType::kF16, 1,
                             kernels::kScaleBytesPerBlock / 2};
  int64_t count = 0;
  for (; block < end; block += kernels::BlockBytes(weights.dtype)) {
    WeightView view = scales;
    view.data = block;
    count += CountAllOnesExponents<uint16_t>(view, 0x7C00);
  }
  return count;
}

}  // namespace

void WidenWeights(const WeightView& weights, float* out) {
  const int64_t n = weights.rows * weights.cols;
  switch (weights.dtype) {
    case DType::kBF16:
    case DType::kBF16Dot:
      for (int64_t i = 0; i < n; ++i) {
        out[i] = Bf16ToFloat(LoadBits<uint16_t>(weights.data, i));
      }
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) {
        out[i] = kernels::FloatOfHalf(LoadBits<uint16_t>(weights.data, i));
      }
      return;
    case DType::kF32:
      if (n > 0) std::memcpy(out, weights.data, n * sizeof(float));
      return;
    case DType::kQ8:
    case DType::kQ4:
      for (int64_t r = 0; r < weights.rows; ++r) {
        kernels::DequantizeRow(weights, r, out + r * weights.cols);
      }
      return;
  }
  SY_CHECK(false);
}

int64_t CountNonFinite(const WeightView& weights) {
  switch (weights.dtype) {
    case DType::kBF16:
    case DType::kBF16Dot:
      return CountAllOnesExponents<uint16_t>(weights, 0x7F80);
    case DType::kF16:
      return CountAllOnesExponents<uint16_t>(weights, 0x7C00);
    case DType::kF32:
      return CountAllOnesExponents<uint32_t>(weights, 0x7F800000);
    case DType::kQ8:
    case DType::kQ4:
      return CountNonFiniteScales(weights);
  }
  SY_CHECK(false);
}

absl::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
    case DType::kF32:
      return "F32";
    case DType::kQ8:
      return "Q8";
    case DType::kQ4:
      return "Q4";
    case DType::kBF16Dot:
      return "BF16DOT";
  }
  SY_CHECK(false);
}

}  // namespace switchyard::model
