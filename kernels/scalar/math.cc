// The definition of kernels/math.h.

#include "kernels/math.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/exp_polynomial.h"

namespace switchyard::kernels {
namespace {

constexpr int kFloatExponentBias = 127;
constexpr int kFloatMantissaBits = 23;

// 2^n as a float, for n in [-126, 127].
float PowerOfTwo(int32_t n) {
  const uint32_t bits = static_cast<uint32_t>(n + kFloatExponentBias)
                        << kFloatMantissaBits;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return power;
}

// ln x for a positive, finite, normal double, to about 1e-13: twice the area
// tangent of s = (m - 1) / (m + 1), where x = 2^e m and m is near 1.
double LogOfPositive(double x) {
  constexpr double kLn2 = 0x1.62e42fefa39efp-1;
  constexpr double kSqrtHalf = 0x1.6a09e667f3bcdp-1;
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // exact; m in [0.5, 1)
  if (m < kSqrtHalf) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1);  // |s| <= 0.172
  const double s2 = s * s;
  // atanh(s) / s = 1 + s^2/3 + s^4/5 + ...; what is left out is below 1e-14.
  double series = 0;
  for (int k = 17; k >= 1; k -= 2) series = series * s2 + 1.0 / k;
  return exponent * kLn2 + 2 * s * series;
}

}  // namespace

float Exp(float x) {
  if (x != x) return x;
  if (x > kExpMax) x = kExpMax;
  if (x < kExpMin) x = kExpMin;
  const float shifted = std::fma(x, kLog2E, kRoundToInteger);
  const float n = shifted - kRoundToInteger;
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float p = kExpC4;
  p = std::fma(p, r, kExpC3);
  p = std::fma(p, r, kExpC2);
  p = std::fma(p, r, kExpC1);
  p = std::fma(p, r, kExpC0);
  p = std::fma(p, r * r, r) + 1.0f;
  // 2^n in two factors, since 2^128 and 2^-150 are no floats; the first product
  // is exact, so the result is rounded once.
  const int32_t exponent = static_cast<int32_t>(n);
  const int32_t half = exponent >> 1;
  return p * PowerOfTwo(half) * PowerOfTwo(exponent - half);
}

float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }

float Silu(float x) { return x / (1.0f + Exp(-x)); }

float Log(float x) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (x == 0) return -kInfinity;
  if (x < 0) return std::numeric_limits<float>::quiet_NaN();
  if (x != x || x == kInfinity) return x;
  return static_cast<float>(LogOfPositive(x));
}

float Softplus(float x) {
  if (!(x <= 20)) return x;  // also NaN
  const double e = Exp(x);
  // Below 2^-10 the sum 1 + e would lose the low bits of e; the series is then
  // good to e^3 / 4 < 3e-10.
  if (e < 0x1p-10) return static_cast<float>(e * (1 - e * (0.5 - e / 3)));
  return static_cast<float>(LogOfPositive(1 + e));
}

}  // namespace switchyard::kernels
