#include "kernels/weight_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/half.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kQuadColumns = 4;

// One group's q and scale (as f16 bits).
struct Group {
  uint16_t scale = 0;
  int8_t q[kGroupColumns] = {};
};

float LargestMagnitude(const float* x, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

// q for a scale that is fixed already, as the reader will have it.
void Round(const float* x, int64_t n, float scale, float low, float high,
           Group* group) {
  group->scale = HalfOfFloat(scale);
  const float stored = FloatOfHalf(group->scale);
  if (stored == 0) return;
  for (int64_t i = 0; i < n; ++i) {
    group->q[i] = static_cast<int8_t>(
        std::clamp(std::nearbyint(x[i] / stored), low, high));
  }
}

Group RoundToEight(const float* x, int64_t n) {
  Group group;
  Round(x, n, LargestMagnitude(x, n) / 127.0f, -127, 127, &group);
  return group;
}

// The scale with the least squared error among a few: [-8, 7] is not
// symmetric, so the value of largest magnitude takes the side of -8, at a step
// from 7 to 9.4 units; for the q that such a step gives, the best scale follows
// (least squares).
Group RoundToFour(const float* x, int64_t n) {
  constexpr int kSteps = 13;
  constexpr float kFirstUnits = 7.0f;
  constexpr float kUnitsPerStep = 0.2f;
  float extreme = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  Group group;
  if (std::fabs(extreme) < 0x1p-100f) return group;
  float best_gain = 0;
  float best_scale = 0;
  for (int step = 0; step < kSteps; ++step) {
    const float inverse = -(kFirstUnits + kUnitsPerStep * step) / extreme;
    float xq = 0;
    float qq = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float q = std::clamp(std::nearbyint(x[i] * inverse), -8.0f, 7.0f);
      xq += x[i] * q;
      qq += q * q;
    }
    // The squared error is sum x^2 - xq^2 / qq at the scale xq / qq.
    if (qq > 0 && xq * xq / qq > best_gain) {
      best_gain = xq * xq / qq;
      best_scale = xq / qq;
    }
  }
  Round(x, n, best_scale, -8, 7, &group);
  return group;
}

}  // namespace

bool QuantizePanel(DType dtype, const float* weights, int64_t rows,
                   int64_t cols, void* panel) {
  uint8_t* block = static_cast<uint8_t*>(panel);
  for (int64_t first = 0; first < PaddedColumns(cols);
       first += kBlockColumns, block += BlockBytes(dtype)) {
    uint8_t* const quads = block + kScaleBytesPerBlock;
    for (int64_t row = 0; row < kPanelRows; ++row) {
      for (int64_t g = 0; g < 2; ++g) {
        const int64_t begin = first + g * kGroupColumns;
        const int64_t n =
            row < rows ? std::clamp<int64_t>(cols - begin, 0, kGroupColumns)
                       : 0;
        const float* const x = n > 0 ? weights + row * cols + begin : nullptr;
        for (int64_t i = 0; i < n; ++i) {
          if (!std::isfinite(x[i])) return false;
        }
        const Group group =
            dtype == DType::kQ8 ? RoundToEight(x, n) : RoundToFour(x, n);
        if (!std::isfinite(FloatOfHalf(group.scale))) return false;
        std::memcpy(block + (g * kPanelRows + row) * sizeof(group.scale),
                    &group.scale, sizeof(group.scale));
        for (int64_t i = 0; i < kGroupColumns; ++i) {
          const int64_t column =
              dtype == DType::kQ8 ? g * kGroupColumns + i : i;
          uint8_t* const byte =
              quads +
              (column / kQuadColumns * kPanelRows + row) * kQuadColumns +
              column % kQuadColumns;
          if (dtype == DType::kQ8) {
            *byte = static_cast<uint8_t>(group.q[i] + 128);
          } else if (g == 0) {
            *byte = static_cast<uint8_t>(group.q[i] + 8);
          } else {
            *byte = static_cast<uint8_t>(*byte | (group.q[i] + 8) << 4);
          }
        }
      }
    }
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
