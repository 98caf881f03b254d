// bfloat16: the upper half of an IEEE float32. In plain integer arithmetic, the
// same on every machine.

#ifndef SWITCHYARD_KERNELS_BF16_H_
#define SWITCHYARD_KERNELS_BF16_H_

#include <bit>
#include <cstdint>

namespace switchyard::kernels {

// Rounded to nearest, ties to even; beyond the greatest bf16 infinite; NaN of
// NaN, made quiet.
[[gnu::always_inline]] inline uint16_t Bf16OfFloat(float value) {
  constexpr uint32_t kInfinity = 0x7f800000;
  constexpr uint32_t kQuiet = 0x00400000;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > kInfinity) {
    return static_cast<uint16_t>((bits | kQuiet) >> 16);
  }
  // Half of the last place that stays, less one unless that one is odd.
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Exact.
[[gnu::always_inline]] inline float FloatOfBf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_BF16_H_
