#include "experts/expert_ffn.h"

namespace switchyard::experts {

void ExpertInner(const kernels::KernelTable& kernels,
                 const model::ExpertWeights& weights, int64_t begin,
                 int64_t end, const float* x, int64_t x_stride, int64_t tokens,
                 float* inner, float* scratch) {
  const int64_t I = weights.gate_proj.rows;
  kernels.matmul(weights.gate_proj, begin, end, x, x_stride, tokens,
                 inner + begin, I);
  kernels.matmul(weights.up_proj, begin, end, x, x_stride, tokens,
                 scratch + begin, I);
  for (int64_t t = 0; t < tokens; ++t) {
    float* const gate = inner + t * I + begin;
    kernels.silu_mul(gate, scratch + t * I + begin, end - begin, gate);
  }
}

void ExpertOutput(const kernels::KernelTable& kernels,
                  const model::ExpertWeights& weights, int64_t begin,
                  int64_t end, const float* inner, int64_t tokens, float* y) {
  const int64_t H = weights.down_proj.rows;
  const int64_t I = weights.down_proj.cols;
  kernels.matmul(weights.down_proj, begin, end, inner, I, tokens, y + begin, H);
}

void ExpertFfn(const kernels::KernelTable& kernels,
               const model::ExpertWeights& weights, const float* x,
               int64_t tokens, float* scratch, float* y) {
  const int64_t I = weights.gate_proj.rows;
  const int64_t H = weights.gate_proj.cols;
  ExpertInner(kernels, weights, 0, I, x, H, tokens, scratch,
              scratch + tokens * I);
  ExpertOutput(kernels, weights, 0, H, scratch, tokens, y);
}

}  // namespace switchyard::experts
