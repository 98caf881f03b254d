#include "kernels/weight_codec.h"

#include <algorithm>
#include <cstring>

#include "kernels/half.h"
#include "kernels/kernel_table.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kQuadColumns = 4;

// The first block of a row's panel.
const uint8_t* BlockOfRow(const WeightView& weight, int64_t row) {
  return static_cast<const uint8_t*>(weight.data) +
         row / kPanelRows * PanelBytes(weight.dtype, weight.cols);
}

// One row of a block: its q [kBlockColumns] and the scales of its two groups.
void UnpackBlock(DType dtype, const uint8_t* block, int64_t row, int8_t* q,
                 float* scales) {
  for (int64_t g = 0; g < 2; ++g) {
    uint16_t scale;
    std::memcpy(&scale, block + (g * kPanelRows + row) * sizeof(scale),
                sizeof(scale));
    scales[g] = FloatOfHalf(scale);
  }
  const uint8_t* const quads = block + kScaleBytesPerBlock + row * kQuadColumns;
  const int64_t quad_bytes = kPanelRows * kQuadColumns;
  if (dtype == DType::kQ8) {
    for (int64_t c = 0; c < kBlockColumns; ++c) {
      const uint8_t byte =
          quads[c / kQuadColumns * quad_bytes + c % kQuadColumns];
      q[c] = static_cast<int8_t>(byte - 128);
    }
    return;
  }
  for (int64_t c = 0; c < kGroupColumns; ++c) {
    const uint8_t pair =
        quads[c / kQuadColumns * quad_bytes + c % kQuadColumns];
    q[c] = static_cast<int8_t>((pair & 0xf) - 8);
    q[c + kGroupColumns] = static_cast<int8_t>((pair >> 4) - 8);
  }
}

}  // namespace

bool QuantizePanel(DType dtype, const float* weights, int64_t rows,
                   int64_t cols, void* panel) {
  const KernelTable& kernels = Kernels();
  uint8_t* block = static_cast<uint8_t*>(panel);
  // A block, turned, and filled up with zeros.
  float columns[kBlockColumns * kPanelRows] = {};
  for (int64_t first = 0; first < cols;
       first += kBlockColumns, block += BlockBytes(dtype)) {
    const int64_t n = std::min(cols - first, kBlockColumns);
    if (n < kBlockColumns)
      std::fill(std::begin(columns), std::end(columns), 0.0f);
    for (int64_t row = 0; row < rows; ++row) {
      const float* const x = weights + row * cols + first;
      for (int64_t c = 0; c < n; ++c) columns[c * kPanelRows + row] = x[c];
    }
    if (!kernels.quantize_block(dtype, columns, block)) return false;
  }
  return true;
}

void UnpackRow(const WeightView& weight, int64_t row, int8_t* q,
               float* scales) {
  const uint8_t* block = BlockOfRow(weight, row);
  for (int64_t g = 0; g < NumGroups(weight.cols); g += 2) {
    UnpackBlock(weight.dtype, block, row % kPanelRows, q + g * kGroupColumns,
                scales + g);
    block += BlockBytes(weight.dtype);
  }
}

void DequantizeRow(const WeightView& weight, int64_t row, float* y) {
  const uint8_t* block = BlockOfRow(weight, row);
  for (int64_t c = 0; c < weight.cols; c += kBlockColumns) {
    int8_t q[kBlockColumns];
    float scales[2];
    UnpackBlock(weight.dtype, block, row % kPanelRows, q, scales);
    const int64_t n = std::min(weight.cols - c, kBlockColumns);
    for (int64_t i = 0; i < n; ++i) {
      y[c + i] = static_cast<float>(q[i]) * scales[i / kGroupColumns];
    }
    block += BlockBytes(weight.dtype);
  }
}

}  // namespace switchyard::kernels
