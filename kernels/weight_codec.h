// Floats to quantised weights and back: when a checkpoint is converted, for
// single rows, and in tests.

#ifndef SWITCHYARD_KERNELS_WEIGHT_CODEC_H_
#define SWITCHYARD_KERNELS_WEIGHT_CODEC_H_

#include <cstdint>

#include "kernels/quantized.h"

namespace switchyard::kernels {

// Encodes rows [0, rows) of a panel, rows <= kPanelRows, from weights [rows,
// cols] (rows without gaps) into `panel`, PanelBytes(dtype, cols) of it. The
// same bits on every machine. False, and `panel` is unspecified, if a weight is
// NaN or infinite or a scale is beyond f16 (|weight| > 8e6 or 5e5).
// Thread-safe.
bool QuantizePanel(DType dtype, const float* weights, int64_t rows,
                   int64_t cols, void* panel);

// Row `row` of a quantised matrix: q [PaddedColumns(cols)] and the scales
// [NumGroups(cols)], with what fills up the last block.
void UnpackRow(const WeightView& weight, int64_t row, int8_t* q, float* scales);

// Row `row` of a quantised matrix as floats: y[c] = q * scale for c in [0,
// cols), rounded once.
void DequantizeRow(const WeightView& weight, int64_t row, float* y);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_WEIGHT_CODEC_H_
