// The reference bodies of the kernels on quantised numbers.

#ifndef SWITCHYARD_KERNELS_SCALAR_QUANTIZED_H_
#define SWITCHYARD_KERNELS_SCALAR_QUANTIZED_H_

#include <cstdint>

#include "kernels/quantized.h"

namespace switchyard::kernels {

// A group in which no value reaches this counts as zeros: 127 / largest could
// overflow.
inline constexpr float kSmallestGroup = 0x1p-100f;

// Of quantize_block: how many units (a unit is a scale) the extreme value of a
// group is tried to have, and how many at each step.
inline constexpr int kUnitSteps = 13;
[[gnu::always_inline]] inline constexpr float UnitsOfStep(int step) {
  return 7.0f + 0.2f * static_cast<float>(step);
}

// KernelTable::quantize_block.
bool ScalarQuantizeBlock(DType dtype, const float* x, uint8_t* block);

// KernelTable::quantize_row.
void ScalarQuantizeRow(const float* x, int64_t cols, int8_t* values,
                       float* scales, int32_t* sums);

// KernelTable::quantized_matmul.
void ScalarQuantizedMatmul(const WeightView& weight, int64_t row_begin,
                           int64_t row_end, const QuantizedRows& x,
                           int64_t tokens, float* y, int64_t y_stride);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_SCALAR_QUANTIZED_H_
