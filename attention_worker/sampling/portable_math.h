// exp and log in double whose bits are the same on every machine.
//
// libm's are not: glibc picks a body with or without fused multiply-add by CPU,
// and the last bit follows. Here only +, -, *, / and exact bit moves are used,
// which IEEE 754 fixes (the build sets -ffp-contract=off, so nothing is fused).
// Errors stay below 2 ulp in the ranges that sampling uses.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_PORTABLE_MATH_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_PORTABLE_MATH_H_

#include <cstdint>
#include <cstring>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace portable_math_internal {

// ln 2 in two parts. The low 21 bits of kLn2High are 0, so that a whole number
// below 2^21 times it is exact (Cody and Waite).
inline constexpr double kLn2High = 0x1.62e42feep-1;
inline constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
inline constexpr int kMantissaBits = 52;
inline constexpr int kExponentBias = 1023;

inline double FromBits(uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint64_t ToBits(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace portable_math_internal

// e^x for x <= 0; 0 below -708 (before denormals begin) and for -infinity.
// Inline and without branches, so that loops over it become vector code.
inline double PortableExp(double x) {
  namespace internal = portable_math_internal;
  SY_DCHECK(x <= 0);
  constexpr double kLog2E = 1.4426950408889634;  // 1 / ln 2
  constexpr double kSmallest = -708.0;
  const double bounded = x > kSmallest ? x : kSmallest;
  // x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^52 rounds to the
  // nearest whole number, and leaves it in the low bits.
  constexpr double kRound = 0x1.8p52;
  const double shifted = bounded * kLog2E + kRound;
  const double n = shifted - kRound;
  const double r = (bounded - n * internal::kLn2High) - n * internal::kLn2Low;
  // Taylor to the 13th power: the next term is below 2^-57 of the sum.
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r * r + r;
  // 2^n: n and the bias in the exponent's bits; what is above them is shifted
  // out.
  const double power =
      internal::FromBits((internal::ToBits(shifted) + internal::kExponentBias)
                         << internal::kMantissaBits);
  return x >= kSmallest ? (1.0 + p) * power : 0.0;
}

// Natural log of a finite, normal x > 0.
double PortableLog(double x);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_PORTABLE_MATH_H_
