// The numbers of Exp (math.h), shared by the scalar and the vector bodies:
//
//   n = x / ln 2 rounded to the nearest integer, r = x - n ln 2
//   e^x = 2^n * (1 + r + r^2 (C0 + C1 r + C2 r^2 + C3 r^3 + C4 r^4))
//
// Plain constants without linkage; see kernel_contracts.h for why no functions.

#ifndef SWITCHYARD_KERNELS_EXP_POLYNOMIAL_H_
#define SWITCHYARD_KERNELS_EXP_POLYNOMIAL_H_

namespace switchyard::kernels {

// x is clamped to [kExpMin, kExpMax] first: e^kExpMin is below half the
// smallest subnormal and e^kExpMax is above FLT_MAX, so the clamp changes no
// result, and n stays within [-150, 128].
constexpr float kExpMin = -104.0f;
constexpr float kExpMax = 89.0f;

constexpr float kLog2E = 0x1.715476p+0f;
// ln 2 = kLn2High + kLn2Low to 48 bits.
constexpr float kLn2High = 0x1.62e430p-1f;
constexpr float kLn2Low = -0x1.05c610p-29f;

// 1.5 * 2^23: a float of this size has no fraction bits, so adding it rounds to
// the nearest integer, which then lies in the low bits.
constexpr float kRoundToInteger = 0x1.8p+23f;

// Minimax (Remez) for the relative error of e^r over |r| <= ln 2 / 2: 2^-28.2.
constexpr float kExpC0 = 0x1.fffffcp-2f;
constexpr float kExpC1 = 0x1.555492p-3f;
constexpr float kExpC2 = 0x1.5558f2p-5f;
constexpr float kExpC3 = 0x1.1239e2p-7f;
constexpr float kExpC4 = 0x1.6a2434p-10f;

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_EXP_POLYNOMIAL_H_
