// The arithmetic of one expert on a block of rows:
//   y = ( silu(x gate_proj^T) * (x up_proj^T) ) down_proj^T
// Equals Qwen3NextMLP.forward of transformers.
//
// Above: experts/expert_engine.h splits many experts' work over threads by the
// two halves below. Not here: threads, allocation, choice of experts.

#ifndef SWITCHYARD_EXPERTS_EXPERT_FFN_H_
#define SWITCHYARD_EXPERTS_EXPERT_FFN_H_

#include <cstdint>

#include "kernels/kernel_table.h"
#include "model/checkpoint.h"

namespace switchyard::experts {

// First half, inner columns [begin, end) of I:
//   inner[t * I + i] = silu(x_t . gate_proj_i) * (x_t . up_proj_i)
// for t in [0, tokens). x has rows of H floats, x_stride apart; `inner` and
// `scratch` are [tokens, I] and must not overlap; only columns [begin, end) of
// either are written.
void ExpertInner(const kernels::KernelTable& kernels,
                 const model::ExpertWeights& weights, int64_t begin,
                 int64_t end, const float* x, int64_t x_stride, int64_t tokens,
                 float* inner, float* scratch);

// Second half, output columns [begin, end) of H:
//   y[t * H + h] = inner_t . down_proj_h
// inner [tokens, I], y [tokens, H].
void ExpertOutput(const kernels::KernelTable& kernels,
                  const model::ExpertWeights& weights, int64_t begin,
                  int64_t end, const float* inner, int64_t tokens, float* y);

// Both halves, all columns. x [tokens, H], y [tokens, H]; scratch holds
// 2 * tokens * I floats. Nothing may overlap.
void ExpertFfn(const kernels::KernelTable& kernels,
               const model::ExpertWeights& weights, const float* x,
               int64_t tokens, float* scratch, float* y);

}  // namespace switchyard::experts

#endif  // SWITCHYARD_EXPERTS_EXPERT_FFN_H_
