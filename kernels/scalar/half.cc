#include "kernels/half.h"

#include <cstring>

namespace switchyard::kernels {
namespace {

float FloatOfBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace

float FloatOfHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 0) {
    // Zero or subnormal: mantissa * 2^-24, which a float holds exactly.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 0x1f) {
    const uint32_t quiet = mantissa != 0 ? 0x00400000 : 0;
    return FloatOfBits(sign | 0x7f800000 | quiet | mantissa << 13);
  }
  // The float's bias is 127 - 15 = 112 more; its mantissa 13 bits longer.
  return FloatOfBits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t HalfOfFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return sign | 0x7e00;   // NaN
  if (bits >= 0x477ff000) return sign | 0x7c00;  // rounds beyond 65504
  if (bits < 0x38800000) {
    // Subnormal, below 2^-14: adding 0.5, whose last place is 2^-24, rounds.
    const float shifted = FloatOfBits(bits) + 0.5f;
    uint32_t shifted_bits;
    std::memcpy(&shifted_bits, &shifted, sizeof(shifted_bits));
    return static_cast<uint16_t>(sign | (shifted_bits - 0x3f000000));
  }
  // Rebias, then round the 13 bits that go: half of the last place, less one
  // unless the kept mantissa is odd.
  const uint32_t odd = (bits >> 13) & 1;
  bits += (static_cast<uint32_t>(15 - 127) << 23) + 0xfff + odd;
  return static_cast<uint16_t>(sign | bits >> 13);
}

}  // namespace switchyard::kernels
