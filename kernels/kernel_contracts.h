// The arithmetic of Qwen3-Next on raw memory: one contract per kernel, one body
// per instruction set (scalar/, simd/), chosen once per process
// (kernel_table.h).
//
// Knows nothing of layers, threads or allocation: callers split the work and
// own every buffer.
//
// Promise that all bodies keep (docs/decisions/0011): a kernel's result for one
// row depends on that row's inputs alone, and is bit-identical on every
// instruction set. To that end
//   * every multiply-add is one fused operation (std::fma; the build has
//     -ffp-contract=off so that the compiler neither fuses nor splits);
//   * every sum over n elements runs in 16 lanes: lane l adds the elements i
//   with
//     i % 16 == l in ascending order, starting from +0; the lanes are then
//     added as a balanced tree (8+8, 4+4, 2+2, 1+1: lane l with l + width/2);
//   * exp, sigmoid and silu are the polynomials of kernels/math.h, not libm's.
// Where a result is NaN it is NaN in every body, but which NaN (sign, payload)
// is the processor's business. The promise needs the default floating-point
// environment: round to nearest, subnormals kept. One kernel, bf16_matmul, has
// an order and an environment of its own.
//
// This header is seen by code compiled for AVX-512, so it may hold no inline
// function that the linker could share with the rest of the binary.

#ifndef SWITCHYARD_KERNELS_KERNEL_CONTRACTS_H_
#define SWITCHYARD_KERNELS_KERNEL_CONTRACTS_H_

#include <cstdint>

#include "kernels/kv_rows.h"
#include "kernels/matrix.h"
#include "kernels/quantized.h"

namespace switchyard::kernels {

// No pointer needs more alignment than its elements have (weights: 2 bytes);
// inputs and outputs must not overlap unless the comment says so; nothing is
// read or written past the sizes given. Sizes may be 0 unless the comment says
// so. Strides are in floats.
struct KernelTable {
  // As --isa takes it (kernel_table.h).
  const char* name;

  // y[t * y_stride + (r - row_begin)] = sum_c weight[r, c] * x[t * x_stride +
  // c] for t in [0, tokens), r in [row_begin, row_end). Weights are widened to
  // float exactly. For f32 weights the bits are those of `dot`.
  // REQUIRES: RowFormatOf(weight.dtype) == RowFormat::kF32.
  void (*matmul)(const WeightView& weight, int64_t row_begin, int64_t row_end,
                 const float* x, int64_t x_stride, int64_t tokens, float* y,
                 int64_t y_stride);

  // Encodes one block of a panel: 16 rows of 64 weights. x is [kBlockColumns,
  // kPanelRows], `block` BlockBytes(dtype) of memory. For each row and each
  // group of 32 columns, in order, all operations rounded to f32:
  //   kQ8: scale = max |x[i]| / 127
  //   kQ4: [-8, 7] is not symmetric, so `extreme`, the first value of largest
  //     magnitude, takes the side of -8. For u = 7 + 0.2 * step, step 0...12,
  //       q[i] = x[i] * (-u / extreme), to nearest even, held within [-8, 7]
  //       xq = sum x[i] * q[i], qq = sum q[i]^2, one lane, not fused
  //     the first step with the greatest xq * xq / qq has the least squared
  //     error, with scale = xq / qq. 0 if |extreme| is below 2^-100.
  // Then scale is rounded to f16, and q[i] = x[i] / scale, to nearest even,
  // held within [-127, 127] or [-8, 7]; 0 if scale is. False, and `block` is
  // unspecified, if a weight is NaN or infinite or a scale beyond f16.
  // REQUIRES: IsQuantized(dtype).
  bool (*quantize_block)(DType dtype, const float* x, uint8_t* block);

  // Quantises one row of `cols` floats (kernels/quantized.h): for each group of
  // 32
  //   largest = max |x[i]|;  scale = largest / 127;
  //   values[i] = x[i] * (127 / largest), rounded to nearest even;
  //   sum = sum values[i].
  // A group whose largest is below 2^-100 counts as zeros. A NaN or an infinity
  // makes its group's scale NaN and its values 0, so that it is seen in every
  // result. Writes the padding too.
  void (*quantize_row)(const float* x, int64_t cols, int8_t* values,
                       float* scales, int32_t* sums);

  // y[t * y_stride + (r - row_begin)] = acc after, for groups g ascending from
  // acc = +0,
  //   acc = fma(dot(r, t, g), weight_scale(r, g) * x.scales[t, g], acc)
  // where dot is the exact integer sum of the products of the group's q and x's
  // values: one lane, so no instruction set can differ.
  // REQUIRES: IsQuantized(weight.dtype), x.cols == weight.cols, row_begin a
  // multiple of 16, row_end a multiple of 16 or weight.rows.
  void (*quantized_matmul)(const WeightView& weight, int64_t row_begin,
                           int64_t row_end, const QuantizedRows& x,
                           int64_t tokens, float* y, int64_t y_stride);

  // y[i] = x[i] rounded to bf16: to nearest, ties to even; beyond the greatest
  // bf16 infinite; NaN of NaN. Subnormals are rounded like others.
  void (*round_to_bf16)(const float* x, int64_t n, uint16_t* y);

  // y[t * y_stride + (r - row_begin)] = the sum over c of weight[r, c] *
  // x[t * x_stride + c], where x too is bf16 (x_stride in elements), as two
  // fused multiply-adds of f32 for each of 16 lanes: from +0, for columns in
  // steps of 32 from c = 0 on, columns beyond weight.cols counting as +0 in
  // both,
  //   lane l = fma(weight[r, c + 2 l + 1], x[t, c + 2 l + 1], lane l)
  //   lane l = fma(weight[r, c + 2 l], x[t, c + 2 l], lane l)
  // then the lanes' tree. Throughout, the tree included, an operand that is
  // subnormal counts as zero of its sign, and a result that is below 2^-126
  // when rounded to 24 bits becomes zero of its sign: what x86 calls DAZ and
  // FTZ, and what vdpbf16ps does in any mode. The caller's mode is left as it
  // was. REQUIRES: weight.dtype == DType::kBF16Dot.
  void (*bf16_matmul)(const WeightView& weight, int64_t row_begin,
                      int64_t row_end, const uint16_t* x, int64_t x_stride,
                      int64_t tokens, float* y, int64_t y_stride);

  // y[i] = data[i], exactly, for n weights of `dtype`, which is not quantised
  // (an embedding's row, a norm's weight). A signalling NaN of f16 becomes
  // quiet.
  void (*widen)(const void* data, DType dtype, int64_t n, float* y);

  // sum a[i] * b[i].
  float (*dot)(const float* a, const float* b, int64_t n);

  // y[i] += alpha * x[i], fused.
  void (*axpy)(float alpha, const float* x, float* y, int64_t n);

  // Attention's scores of some queries with n keys of one KV head:
  //   scores[h * score_stride + j] = scale * dot(q + h * dim, key j, dim)
  // for h in [0, queries), j in [0, n), with the keys as floats. q is [queries,
  // dim] without gaps.
  void (*attention_scores)(const float* q, int64_t queries, const KvRows& keys,
                           int64_t n, int64_t dim, float scale, float* scores,
                           int64_t score_stride);

  // Attention's weighted sums of n values of one KV head:
  //   y[h * dim + i] += sum_j weights[h * weight_stride + j] * value j [i]
  // for h in [0, queries), i in [0, dim). y is [queries, dim] without gaps. The
  // bits are those of axpy(weights[h, j], value j, y[h]) for j = 0, 1, ... n -
  // 1 on the values as floats, so they do not depend on how n is cut into
  // calls.
  void (*attention_values)(const float* weights, int64_t weight_stride,
                           int64_t queries, const KvRows& values, int64_t n,
                           int64_t dim, float* y);

  // y = x / sqrt(mean(x^2) + eps) * (offset + w); offset 1 for zero-centred
  // norms, 0 for linear_attn.norm. y may be x. Rounded as
  // (x * (1 / sqrt(sum / n + eps))) * (offset + w).
  void (*rms_norm)(const float* x, const float* w, float offset, float eps,
                   int64_t n, float* y);

  // y = x / sqrt(sum(x^2) + eps) * scale. y may be x. Rounded as
  // (x * (1 / sqrt(sum + eps))) * scale.
  void (*l2_norm)(const float* x, float eps, float scale, int64_t n, float* y);

  // y[i] = silu(gate[i]) * up[i]. y may be gate or up.
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);

  // y[i] = x[i] * sigmoid(gate[i]). y may be x or gate.
  void (*sigmoid_mul)(const float* x, const float* gate, int64_t n, float* y);

  // In place: x[i] = exp(x[i] - max(x)); *sum = the sum of the results; returns
  // the maximum. n >= 1. A NaN is passed over by the maximum, and then makes
  // its own result and the sum NaN; so does a maximum of +inf or -inf where
  // x[i] equals it.
  float (*exp_sub_max)(float* x, int64_t n, float* sum);

  // weights[i] = e^((x[i] - max) * inverse_temperature), to some 2 ulp and the
  // exponent's own rounding; 0 where that is below e^-87, and for NaN. Returns
  // their sum: entry i is added to the (i mod 16)-th of sixteen sums in double,
  // which are then added in halves. For sampling, so the operations are fixed
  // (kernels/softmax_weights.inc). REQUIRES: max finite, no x[i] greater,
  // inverse_temperature > 0.
  double (*softmax_weights)(const float* x, float max,
                            float inverse_temperature, int64_t n,
                            float* weights);

  // Rotates the first 2n of one head in place, half-split ("NeoX"):
  //   x[i]     = fma(x[i], cos[i], -(x[i + n] * sin[i]))
  //   x[i + n] = fma(x[i + n], cos[i], x[i] * sin[i])
  void (*rope)(float* x, const float* cos, const float* sin, int64_t n);

  // Causal depthwise convolution and SiLU for one token over channels
  // [0, channels): y[c] = silu(sum_j w[c * taps + j] * in_j[c]) where in_j is
  // tail + j * channels for j < taps - 1 (oldest first) and x for the last tap.
  // Then the tail moves on by one token: its rows shift, its last row becomes
  // x. The sum runs over j in ascending order, one lane. taps >= 1. y may be x.
  void (*conv_step)(const float* w, int64_t taps, const float* x, float* tail,
                    int64_t channels, float* y);

  // One token of the gated delta rule (Yang et al. 2024) on columns
  // [0, columns) of one value head's state S [dk, dv] (row stride dv =
  // `stride`; S points at the first of those columns, v and out likewise):
  //   S *= decay;  u = beta * (v - k S);  S += k^T u;  out = q S
  // Column j needs only k, q, decay, beta and v[j], so the result does not
  // depend on how columns are split. out may be v.
  // Sums over dk run in ascending order, one lane.
  void (*delta_rule_step)(const float* q, const float* k, const float* v,
                          float decay, float beta, int64_t dk, int64_t columns,
                          int64_t stride, float* S, float* out);
};

// The bodies. A process may call only those that its CPU can run: use
// kernel_table.h.
extern const KernelTable kScalarKernels;
extern const KernelTable kAvx2Kernels;    // x86-64 with AVX2, FMA and F16C
extern const KernelTable kAvx512Kernels;  // x86-64 with AVX-512 F, BW, DQ, VL

// Of the table "avx512vnni", which is else kAvx512Kernels; for CPUs that have
// AVX-512 VNNI besides.
using QuantizedMatmulKernel = decltype(KernelTable::quantized_matmul);
extern const QuantizedMatmulKernel kAvx512VnniQuantizedMatmul;

// Of the table "avx512bf16", which is else "avx512vnni"; for CPUs that have
// AVX-512 BF16 besides.
using Bf16MatmulKernel = decltype(KernelTable::bf16_matmul);
extern const Bf16MatmulKernel kAvx512Bf16Matmul;

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_KERNEL_CONTRACTS_H_
