#include "kernels/weight_codec.h"

#include <algorithm>
#include <cstring>

#include "kernels/half.h"
#include "kernels/kernel_table.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kQuadColumns = 4;

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

void DequantizeRow(const WeightView& weight, int64_t row, float* y) {
  const uint8_t* block =
      static_cast<const uint8_t*>(weight.data) +
      row / kPanelRows * PanelBytes(weight.dtype, weight.cols);
  row %= kPanelRows;
  for (int64_t c = 0; c < weight.cols; ++c) {
    const int64_t within = c % kBlockColumns;
    const int64_t g = within / kGroupColumns;
    uint16_t scale;
    std::memcpy(&scale, block + (g * kPanelRows + row) * sizeof(scale),
                sizeof(scale));
    const int64_t column =
        weight.dtype == DType::kQ8 ? within : within % kGroupColumns;
    const uint8_t byte =
        block[kScaleBytesPerBlock +
              (column / kQuadColumns * kPanelRows + row) * kQuadColumns +
              column % kQuadColumns];
    int q;
    if (weight.dtype == DType::kQ8) {
      q = byte - 128;
    } else {
      q = (g == 0 ? byte & 0xf : byte >> 4) - 8;
    }
    y[c] = static_cast<float>(q) * FloatOfHalf(scale);
    if (within == kBlockColumns - 1) block += BlockBytes(weight.dtype);
  }
}

}  // namespace switchyard::kernels
