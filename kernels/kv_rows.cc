#include "kernels/kv_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/bf16.h"

namespace switchyard::kernels {
namespace {

// Below it, dividing by the scale could overflow.
constexpr float kSmallestGroup = 0x1p-100f;
constexpr float kLargestQ = 127.0f;

uint32_t BitsOfFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float FloatOfBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// n columns to bytes; the scale.
float EncodeGroup(const float* x, int64_t n, int8_t* q) {
  // Bits of magnitudes are ordered as these, and NaN's are beyond infinity's.
  uint32_t largest_bits = 0;
  for (int64_t i = 0; i < n; ++i) {
    largest_bits = std::max(largest_bits, BitsOfFloat(x[i]) & 0x7fffffff);
  }
  const float largest = FloatOfBits(largest_bits);
  const bool finite = std::isfinite(largest);
  if (!finite || largest < kSmallestGroup) {
    std::fill_n(q, n, int8_t{0});
    return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  const float scale = largest / kLargestQ;
  // 1.5 * 2^23 has no fraction bits: adding it rounds to nearest even.
  constexpr float kRoundToInteger = 0x1.8p+23f;
  for (int64_t i = 0; i < n; ++i) {
    const float rounded = (x[i] / scale + kRoundToInteger) - kRoundToInteger;
    q[i] = static_cast<int8_t>(std::clamp(rounded, -kLargestQ, kLargestQ));
  }
  return scale;
}

}  // namespace

void EncodeKvRow(KvDType dtype, const float* x, int64_t dim, void* row) {
  switch (dtype) {
    case KvDType::kF32:
      std::memcpy(row, x, static_cast<size_t>(dim) * sizeof(float));
      return;
    case KvDType::kBF16: {
      char* const out = static_cast<char*>(row);
      for (int64_t i = 0; i < dim; ++i) {
        const uint16_t bits = Bf16OfFloat(x[i]);
        std::memcpy(out + 2 * i, &bits, sizeof(bits));
      }
      return;
    }
    case KvDType::kI8: {
      int8_t* const q = static_cast<int8_t*>(row);
      char* scales = reinterpret_cast<char*>(q + dim);
      for (int64_t i = 0; i < dim; i += kKvGroupColumns) {
        const float scale =
            EncodeGroup(x + i, std::min(kKvGroupColumns, dim - i), q + i);
        std::memcpy(scales, &scale, sizeof(scale));
        scales += sizeof(scale);
      }
      return;
    }
  }
}

void DecodeKvRow(KvDType dtype, const void* row, int64_t dim, float* x) {
  switch (dtype) {
    case KvDType::kF32:
      std::memcpy(x, row, static_cast<size_t>(dim) * sizeof(float));
      return;
    case KvDType::kBF16: {
      const char* const in = static_cast<const char*>(row);
      for (int64_t i = 0; i < dim; ++i) {
        uint16_t bits;
        std::memcpy(&bits, in + 2 * i, sizeof(bits));
        x[i] = FloatOfBf16(bits);
      }
      return;
    }
    case KvDType::kI8: {
      const int8_t* const q = static_cast<const int8_t*>(row);
      const char* const scales = reinterpret_cast<const char*>(q + dim);
      for (int64_t i = 0; i < dim; ++i) {
        float scale;
        std::memcpy(&scale, scales + i / kKvGroupColumns * 4, sizeof(scale));
        x[i] = static_cast<float>(q[i]) * scale;
      }
      return;
    }
  }
}

}  // namespace switchyard::kernels
