#include "model/weight_values.h"

#include <bit>
#include <cstring>

#include "base/check.h"

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

// IEEE binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits.
float F16ToFloat(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = (bits >> 10) & 0x1F;
  const uint32_t fraction = bits & 0x3FF;
  if (exponent == 0x1F) {  // infinity and NaN
    return std::bit_cast<float>(sign | 0x7F800000u | (fraction << 13));
  }
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24, exact in float
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  // Rebias by 127 - 15.
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) |
                              (fraction << 13));
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

}  // namespace

void WidenWeights(const WeightView& weights, float* out) {
  const int64_t n = weights.rows * weights.cols;
  switch (weights.dtype) {
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) {
        out[i] = Bf16ToFloat(LoadBits<uint16_t>(weights.data, i));
      }
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) {
        out[i] = F16ToFloat(LoadBits<uint16_t>(weights.data, i));
      }
      return;
    case DType::kF32:
      if (n > 0) std::memcpy(out, weights.data, n * sizeof(float));
      return;
  }
  SY_CHECK(false);
}

int64_t CountNonFinite(const WeightView& weights) {
  switch (weights.dtype) {
    case DType::kBF16:
      return CountAllOnesExponents<uint16_t>(weights, 0x7F80);
    case DType::kF16:
      return CountAllOnesExponents<uint16_t>(weights, 0x7C00);
    case DType::kF32:
      return CountAllOnesExponents<uint32_t>(weights, 0x7F800000);
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
  }
  SY_CHECK(false);
}

}  // namespace switchyard::model
