// The reference bodies of the two kernels on quantised numbers.

#ifndef SWITCHYARD_KERNELS_SCALAR_QUANTIZED_H_
#define SWITCHYARD_KERNELS_SCALAR_QUANTIZED_H_

#include <cstdint>

#include "kernels/quantized.h"

namespace switchyard::kernels {

// quantize_row takes a group for zeros if no value reaches this: 127 / largest
// could overflow.
inline constexpr float kSmallestGroup = 0x1p-100f;

// KernelTable::quantize_row.
void ScalarQuantizeRow(const float* x, int64_t cols, int8_t* values,
                       float* scales, int32_t* sums);

// KernelTable::quantized_matmul.
void ScalarQuantizedMatmul(const WeightView& weight, int64_t row_begin,
                           int64_t row_end, const QuantizedRows& x,
                           int64_t tokens, float* y, int64_t y_stride);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_SCALAR_QUANTIZED_H_
