// The reference bodies of the products of bf16 with bf16.

#ifndef SWITCHYARD_KERNELS_SCALAR_BF16_H_
#define SWITCHYARD_KERNELS_SCALAR_BF16_H_

#include <cstdint>

#include "kernels/matrix.h"

namespace switchyard::kernels {

// KernelTable::round_to_bf16.
void ScalarRoundToBf16(const float* x, int64_t n, uint16_t* y);

// KernelTable::bf16_matmul.
void ScalarBf16Matmul(const WeightView& weight, int64_t row_begin,
                      int64_t row_end, const uint16_t* x, int64_t x_stride,
                      int64_t tokens, float* y, int64_t y_stride);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_SCALAR_BF16_H_
