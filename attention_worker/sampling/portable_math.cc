#include "attention_worker/sampling/portable_math.h"

#include <cstdint>

#include "base/check.h"

namespace switchyard::attention_worker {

using portable_math_internal::FromBits;
using portable_math_internal::kExponentBias;
using portable_math_internal::kLn2High;
using portable_math_internal::kLn2Low;
using portable_math_internal::kMantissaBits;
using portable_math_internal::ToBits;

double PortableLog(double x) {
  SY_DCHECK(x > 0);
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)).
  const uint64_t bits = ToBits(x);
  int64_t e = static_cast<int64_t>(bits >> kMantissaBits) - kExponentBias;
  double m = FromBits((bits & ((uint64_t{1} << kMantissaBits) - 1)) |
                      (uint64_t{kExponentBias} << kMantissaBits));
  if (m >= 1.4142135623730951) {
    m *= 0.5;
    ++e;
  }
  // log m = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...) with s = (m - 1) / (m +
  // 1), so s^2 < 0.0295; the first term left out (s^23) is below 2^-60.
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double p = 1.0 / 21.0;
  p = p * z + 1.0 / 19.0;
  p = p * z + 1.0 / 17.0;
  p = p * z + 1.0 / 15.0;
  p = p * z + 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  p = p * z;
  const double log_m = 2.0 * (s + s * p);
  const double whole = static_cast<double>(e);
  return whole * kLn2High + (log_m + whole * kLn2Low);
}

}  // namespace switchyard::attention_worker
