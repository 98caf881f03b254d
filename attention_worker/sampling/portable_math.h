// The natural logarithm in double, with the same bits on every machine.
// (Exponentials: softmax_weights of kernels/kernel_contracts.h.)
//
// libm's are not: glibc picks a body with or without fused multiply-add by CPU,
// and the last bit follows. Here only +, -, *, / and exact bit moves are used,
// which IEEE 754 fixes (the build sets -ffp-contract=off, so nothing is fused).
// Errors stay below 2 ulp in the ranges that sampling uses.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_PORTABLE_MATH_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_PORTABLE_MATH_H_

#include <cstdint>
#include <cstring>

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

// Natural log of a finite, normal x > 0.
double PortableLog(double x);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_PORTABLE_MATH_H_
