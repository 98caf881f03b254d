// Elementary functions whose bits are the same on every machine: they use IEEE
// operations alone (fused where the definition says so), never libm, whose
// results depend on its version and on the CPU. The kernels' vector bodies
// repeat Exp, Sigmoid and Silu operation by operation.
//
// Plain functions, out of line: this header may be seen by code compiled for
// AVX-512 (kernel_contracts.h says why that matters).

#ifndef SWITCHYARD_KERNELS_MATH_H_
#define SWITCHYARD_KERNELS_MATH_H_

namespace switchyard::kernels {

// The errors below are measured over (a good share of) all floats, in units in
// the last place of the exact value; tests/kernels/math_test.cc repeats a
// sample.

// e^x, within 1.01 ulp. Exp(0) is 1 exactly. Results below the smallest normal
// float are rounded to subnormals, not flushed; below half the smallest
// subnormal (x < -103.97) and at -inf 0; above FLT_MAX (x > 88.7228) +inf; NaN
// of NaN.
float Exp(float x);

// 1 / (1 + e^-x), rounded as 1 / (1 + Exp(-x)). Within 2.5 ulp, except that it
// is 0 where Exp(-x) overflows (x < -88.7228; the exact value is then below
// 3e-39).
float Sigmoid(float x);

// x * sigmoid(x), rounded as x / (1 + Exp(-x)). Within 2.5 ulp, except that it
// is -0 where Exp(-x) overflows. NaN at -inf, as in PyTorch.
float Silu(float x);

// ln x, within 0.51 ulp. -inf at 0 (either sign), NaN below.
float Log(float x);

// ln(1 + e^x), x itself above 20 (as in PyTorch). Within 1.5 ulp.
float Softplus(float x);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_MATH_H_
