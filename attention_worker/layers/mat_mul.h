// Products of activations with weights of any dtype, shared out over threads.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_MAT_MUL_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_MAT_MUL_H_

#include <cstdint>

#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "kernels/matrix.h"

namespace switchyard::attention_worker {

// y = x weight^T: y[t * y_stride + r] for `tokens` rows of x.
struct MatMulJob {
  kernels::WeightView weight;
  const float* x = nullptr;  // [tokens, weight.cols], row stride x_stride
  int64_t x_stride = 0;
  float* y = nullptr;  // [tokens, weight.rows], row stride y_stride
  int64_t y_stride = 0;
};

// All jobs in one parallel loop: they must not read one another's results.
// Where weights take other rows than floats (kernels::RowFormatOf), x is made
// that first: once for all jobs that have the same.
void MatMul(const LayerContext& context, absl::Span<const MatMulJob> jobs,
            int64_t tokens);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_MAT_MUL_H_
