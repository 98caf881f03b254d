// The arithmetic of one expert on a block of rows:
//   y = ( silu(x gate_proj^T) * (x up_proj^T) ) down_proj^T
// Equals Qwen3NextMLP.forward of transformers.
//
// Above: experts/plain_experts.h and experts/quantized_experts.h split many
// experts' work over threads by the two halves below. Not here: threads, choice
// of experts.

#ifndef SWITCHYARD_EXPERTS_EXPERT_FFN_H_
#define SWITCHYARD_EXPERTS_EXPERT_FFN_H_

#include <cstdint>

#include "experts/quantized_buffer.h"
#include "kernels/kernel_table.h"
#include "model/checkpoint.h"

namespace switchyard::experts {

// First half, inner columns [begin, end) of I:
//   inner[t * I + i] = silu(x_t . gate_proj_i) * (x_t . up_proj_i)
// for t in [0, tokens). x has rows of H floats, x_stride apart; `inner` and
// `scratch` are [tokens, I] and must not overlap; only columns [begin, end) of
// either are written. REQUIRES: weights that take rows of floats.
void ExpertInner(const kernels::KernelTable& kernels,
                 const model::ExpertWeights& weights, int64_t begin,
                 int64_t end, const float* x, int64_t x_stride, int64_t tokens,
                 float* inner, float* scratch);

// Second half, output columns [begin, end) of H:
//   y[t * H + h] = inner_t . down_proj_h
// inner [tokens, I], y [tokens, H]. REQUIRES: weights that take rows of floats.
void ExpertOutput(const kernels::KernelTable& kernels,
                  const model::ExpertWeights& weights, int64_t begin,
                  int64_t end, const float* inner, int64_t tokens, float* y);

// The halves for kBF16Dot: x and `inner` [tokens, I] are bf16, x_stride counts
// elements, and the inner activations are rounded as they are written.
void Bf16ExpertInner(const kernels::KernelTable& kernels,
                     const model::ExpertWeights& weights, int64_t begin,
                     int64_t end, const uint16_t* x, int64_t x_stride,
                     int64_t tokens, uint16_t* inner);
void Bf16ExpertOutput(const kernels::KernelTable& kernels,
                      const model::ExpertWeights& weights, int64_t begin,
                      int64_t end, const uint16_t* inner, int64_t tokens,
                      float* y);

// The halves for quantised weights. Between them the inner activations are
// quantised in groups of 32 columns.
//
// x [tokens, H]. Writes columns [begin, end) of `tokens` rows of `inner` from
// `inner_row` on. REQUIRES: `begin` is a multiple of 64, `end` too or I.
void QuantizedExpertInner(const kernels::KernelTable& kernels,
                          const model::ExpertWeights& weights, int64_t begin,
                          int64_t end, const kernels::QuantizedRows& x,
                          int64_t tokens, QuantizedBuffer* inner,
                          int64_t inner_row);
// inner [tokens, I], y [tokens, H]. REQUIRES: `begin` is a multiple of 16,
// `end` too or H.
void QuantizedExpertOutput(const kernels::KernelTable& kernels,
                           const model::ExpertWeights& weights, int64_t begin,
                           int64_t end, const kernels::QuantizedRows& inner,
                           int64_t tokens, float* y);

// Both halves, all columns, weights of any dtype. x [tokens, H], y [tokens, H],
// which must not overlap. Allocates what it needs between the halves.
void ExpertFfn(const kernels::KernelTable& kernels,
               const model::ExpertWeights& weights, const float* x,
               int64_t tokens, float* y);

}  // namespace switchyard::experts

#endif  // SWITCHYARD_EXPERTS_EXPERT_FFN_H_
