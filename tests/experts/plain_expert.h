// One expert by its definition, in double: what the engine is compared with.

#ifndef SWITCHYARD_TESTS_EXPERTS_PLAIN_EXPERT_H_
#define SWITCHYARD_TESTS_EXPERTS_PLAIN_EXPERT_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/kernel_table.h"
#include "kernels/quantized.h"
#include "model/checkpoint.h"
#include "model/weight_values.h"

namespace switchyard::experts {

// y[r] = sum_c w[r, c] x[c].
inline std::vector<double> PlainProduct(const kernels::WeightView& w,
                                        const std::vector<double>& x) {
  std::vector<float> values(w.rows * w.cols);
  model::WidenWeights(w, values.data());
  std::vector<double> y(w.rows);
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t c = 0; c < w.cols; ++c) y[r] += values[r * w.cols + c] * x[c];
  }
  return y;
}

// (silu(x gate_proj^T) * (x up_proj^T)) down_proj^T; x [H].
inline std::vector<double> PlainExpert(const model::ExpertWeights& weights,
                                       const float* x) {
  const std::vector<double> input(x, x + weights.gate_proj.cols);
  const std::vector<double> gate = PlainProduct(weights.gate_proj, input);
  std::vector<double> inner = PlainProduct(weights.up_proj, input);
  for (size_t i = 0; i < inner.size(); ++i) {
    inner[i] *= gate[i] / (1 + std::exp(-gate[i]));
  }
  return PlainProduct(weights.down_proj, inner);
}

// One product after the other on whole matrices, by the scalar reference, of
// weights that take quantised rows or such in bf16.
inline std::vector<float> ExpertByDefinition(
    const model::ExpertWeights& weights, const float* x) {
  const kernels::KernelTable& kernels = kernels::kScalarKernels;
  const auto multiply = [&](const kernels::WeightView& w, const float* input) {
    if (RowFormatOf(w.dtype) == kernels::RowFormat::kBF16) {
      std::vector<uint16_t> rounded(w.cols);
      kernels.round_to_bf16(input, w.cols, rounded.data());
      std::vector<float> y(w.rows);
      kernels.bf16_matmul(w, 0, w.rows, rounded.data(), w.cols, 1, y.data(),
                          w.rows);
      return y;
    }
    std::vector<int8_t> values(kernels::PaddedColumns(w.cols));
    std::vector<float> scales(kernels::NumGroups(w.cols));
    std::vector<int32_t> sums(kernels::NumGroups(w.cols));
    kernels.quantize_row(input, w.cols, values.data(), scales.data(),
                         sums.data());
    std::vector<float> y(w.rows);
    kernels.quantized_matmul(
        w, 0, w.rows, {values.data(), scales.data(), sums.data(), w.cols}, 1,
        y.data(), w.rows);
    return y;
  };
  std::vector<float> inner = multiply(weights.gate_proj, x);
  const std::vector<float> up = multiply(weights.up_proj, x);
  kernels.silu_mul(inner.data(), up.data(), up.size(), inner.data());
  return multiply(weights.down_proj, inner.data());
}

}  // namespace switchyard::experts

#endif  // SWITCHYARD_TESTS_EXPERTS_PLAIN_EXPERT_H_
