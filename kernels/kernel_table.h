// The arithmetic of Qwen3-Next on raw memory: one contract per kernel, one body
// per instruction set, chosen once per process.
//
// Knows nothing of layers, threads or allocation: callers split the work and own
// every buffer.
//
// Promise that all bodies keep (DESIGN.md, promise 2): a kernel's result for one
// row depends on that row's inputs alone, and is bit-identical on every
// instruction set. To that end
//   * every multiply-add is one fused operation (std::fma; the build has
//     -ffp-contract=off so that the compiler neither fuses nor splits);
//   * every sum over n elements runs in 16 lanes: lane l adds the elements i with
//     i % 16 == l in ascending order, starting from +0; the lanes are then added
//     as a balanced tree (8+8, 4+4, 2+2, 1+1: lane l with l + width/2);
//   * exp, sigmoid and silu are the polynomials of kernels/math.h, not libm's.

#ifndef SWITCHYARD_KERNELS_KERNEL_TABLE_H_
#define SWITCHYARD_KERNELS_KERNEL_TABLE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/matrix.h"

namespace switchyard::kernels {

// No pointer needs alignment; inputs and outputs must not overlap unless the
// comment says so; nothing is read or written past the sizes given.
struct KernelTable {
  const char* name;  // "scalar", "avx2" or "avx512"

  // y[t * y_stride + (r - row_begin)] = sum_c weight[r, c] * x[t * x_stride + c]
  // for t in [0, tokens), r in [row_begin, row_end). Strides in floats. Weights
  // are widened to float exactly.
  void (*matmul)(const WeightView& weight, int64_t row_begin, int64_t row_end,
                 const float* x, int64_t x_stride, int64_t tokens, float* y,
                 int64_t y_stride);

  // sum a[i] * b[i].
  float (*dot)(const float* a, const float* b, int64_t n);

  // y[i] += alpha * x[i], fused.
  void (*axpy)(float alpha, const float* x, float* y, int64_t n);

  // y = x / sqrt(mean(x^2) + eps) * (offset + w); offset 1 for zero-centred
  // norms, 0 for linear_attn.norm. y may be x.
  void (*rms_norm)(const float* x, const float* w, float offset, float eps,
                   int64_t n, float* y);

  // y = x / sqrt(sum(x^2) + eps) * scale. y may be x.
  void (*l2_norm)(const float* x, float eps, float scale, int64_t n, float* y);

  // y[i] = silu(gate[i]) * up[i]. y may be gate or up.
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);

  // y[i] = x[i] * sigmoid(gate[i]). y may be x.
  void (*sigmoid_mul)(const float* x, const float* gate, int64_t n, float* y);

  // In place: x[i] = exp(x[i] - max(x)); returns the sum of the results.
  // n >= 1.
  float (*exp_sub_max)(float* x, int64_t n);

  // Rotates the first 2n of one head in place, half-split ("NeoX"):
  //   x[i]     = x[i] * cos[i] - x[i + n] * sin[i]
  //   x[i + n] = x[i + n] * cos[i] + x[i] * sin[i]
  void (*rope)(float* x, const float* cos, const float* sin, int64_t n);

  // Causal depthwise convolution and SiLU for one token over channels
  // [0, channels): y[c] = silu(sum_j w[c * taps + j] * in_j[c]) where in_j is
  // tail + j * channels for j < taps - 1 (oldest first) and x for the last tap.
  // Then the tail moves on by one token: its rows shift, its last row becomes x.
  void (*conv_step)(const float* w, int64_t taps, const float* x, float* tail,
                    int64_t channels, float* y);

  // One token of the gated delta rule (Yang et al. 2024) on columns
  // [0, columns) of one value head's state S [dk, dv] (row stride dv = `stride`;
  // S points at the first of those columns, v and out likewise):
  //   S *= decay;  u = beta * (v - k S);  S += k^T u;  out = q S
  // Column j needs only k, q, decay, beta and v[j], so the result does not
  // depend on how columns are split.
  // Sums over dk run in ascending order, one lane.
  void (*delta_rule_step)(const float* q, const float* k, const float* v,
                          float decay, float beta, int64_t dk, int64_t columns,
                          int64_t stride, float* S, float* out);
};

// The best table that this CPU can run, or the one that SelectKernels forced.
const KernelTable& Kernels();

// The tables that this CPU can run, the scalar reference first.
std::vector<const KernelTable*> AvailableKernels();

// `isa`: "auto", "scalar", "avx2", "avx512". Call before the first Kernels(), from
// main. INVALID_ARGUMENT: unknown name. FAILED_PRECONDITION: not on this CPU.
absl::Status SelectKernels(absl::string_view isa);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_KERNEL_TABLE_H_
