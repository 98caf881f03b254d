// IEEE binary16: 1 sign, 5 exponent (bias 15), 10 mantissa bits. In plain
// integer arithmetic, the same on every machine.

#ifndef SWITCHYARD_KERNELS_HALF_H_
#define SWITCHYARD_KERNELS_HALF_H_

#include <cstdint>

namespace switchyard::kernels {

// Exact. A signalling NaN becomes quiet.
float FloatOfHalf(uint16_t half);

// Rounded to nearest, ties to even; beyond 65519.99 infinite; NaN of NaN.
uint16_t HalfOfFloat(float value);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_HALF_H_
