#include "kernels/scalar/quantized.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/half.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kQuadColumns = 4;

// q of columns [0, 64) of one row of a block.
void UnpackRow(const uint8_t* quads, DType dtype, int64_t row, int32_t* q) {
  for (int64_t c = 0; c < kBlockColumns; ++c) {
    if (dtype == DType::kQ8) {
      q[c] = quads[(c / kQuadColumns * kPanelRows + row) * kQuadColumns +
                   c % kQuadColumns] -
             128;
      continue;
    }
    const int64_t within = c % kGroupColumns;
    const uint8_t pair =
        quads[(within / kQuadColumns * kPanelRows + row) * kQuadColumns +
              within % kQuadColumns];
    q[c] = (c < kGroupColumns ? pair & 0xf : pair >> 4) - 8;
  }
}

float Product(const WeightView& weight, int64_t row, const int8_t* values,
              const float* scales) {
  const int64_t block_bytes = BlockBytes(weight.dtype);
  const uint8_t* block =
      static_cast<const uint8_t*>(weight.data) +
      row / kPanelRows * PanelBytes(weight.dtype, weight.cols);
  row %= kPanelRows;
  float sum = 0;
  for (int64_t b = 0; b < PaddedColumns(weight.cols) / kBlockColumns; ++b) {
    uint16_t weight_scales[2 * kPanelRows];
    std::memcpy(weight_scales, block, sizeof(weight_scales));
    int32_t q[kBlockColumns];
    UnpackRow(block + kScaleBytesPerBlock, weight.dtype, row, q);
    for (int64_t g = 0; g < 2; ++g) {
      int32_t dot = 0;
      for (int64_t i = g * kGroupColumns; i < (g + 1) * kGroupColumns; ++i) {
        dot += q[i] * values[b * kBlockColumns + i];
      }
      const float scale =
          FloatOfHalf(weight_scales[g * kPanelRows + row]) * scales[2 * b + g];
      sum = std::fma(static_cast<float>(dot), scale, sum);
    }
    block += block_bytes;
  }
  return sum;
}

}  // namespace

void ScalarQuantizeRow(const float* x, int64_t cols, int8_t* values,
                       float* scales, int32_t* sums) {
  for (int64_t g = 0; g < NumGroups(cols); ++g) {
    const int64_t begin = g * kGroupColumns;
    const int64_t n = std::clamp<int64_t>(cols - begin, 0, kGroupColumns);
    float largest = 0;
    bool finite = true;
    for (int64_t i = begin; i < begin + n; ++i) {
      finite = finite && std::isfinite(x[i]);
      largest = std::max(largest, std::fabs(x[i]));
    }
    std::fill_n(values + begin, kGroupColumns, int8_t{0});
    sums[g] = 0;
    if (!finite) {
      scales[g] = std::numeric_limits<float>::quiet_NaN();
      continue;
    }
    if (largest < kSmallestGroup) {
      scales[g] = 0;
      continue;
    }
    scales[g] = largest / 127.0f;
    const float inverse = 127.0f / largest;
    for (int64_t i = begin; i < begin + n; ++i) {
      values[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
      sums[g] += values[i];
    }
  }
}

void ScalarQuantizedMatmul(const WeightView& weight, int64_t row_begin,
                           int64_t row_end, const QuantizedRows& x,
                           int64_t tokens, float* y, int64_t y_stride) {
  const int64_t stride = PaddedColumns(weight.cols);
  const int64_t groups = NumGroups(weight.cols);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = row_begin; r < row_end; ++r) {
      y[t * y_stride + (r - row_begin)] =
          Product(weight, r, x.values + t * stride, x.scales + t * groups);
    }
  }
}

}  // namespace switchyard::kernels
