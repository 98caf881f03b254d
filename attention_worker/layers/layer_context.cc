#include "attention_worker/layers/layer_context.h"

#include <algorithm>

namespace switchyard::attention_worker {

void ForEach(const LayerContext& context, int64_t items, int64_t cost_per_item,
             absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
  const int64_t grain =
      std::max<int64_t>(1, kMinWork / std::max<int64_t>(1, cost_per_item));
  context.pool->ParallelFor(items, grain, body);
}

void ZeroCentredRmsNorm(const LayerContext& context, const float* x,
                        absl::Span<const float> weight, int64_t rows,
                        float* y) {
  const int64_t n = static_cast<int64_t>(weight.size());
  const float eps = static_cast<float>(context.config->rms_norm_eps);
  ForEach(context, rows, 2 * n, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      context.kernels->rms_norm(x + t * n, weight.data(), /*offset=*/1.0f, eps,
                                n, y + t * n);
    }
  });
}

void AddRows(const LayerContext& context, const float* y, int64_t rows,
             int64_t n, float* x) {
  ForEach(context, rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * n; i < end * n; ++i) x[i] += y[i];
  });
}

}  // namespace switchyard::attention_worker
