#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/half.h"
#include "kernels/scalar/quantized.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kQuadColumns = 4;

// One group's q and scale (as f16 bits).
struct Group {
  uint16_t scale = 0;
  int8_t q[kGroupColumns] = {};
};

float LargestMagnitude(const float* x) {
  float largest = 0;
  for (int64_t i = 0; i < kGroupColumns; ++i)
    largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

// q for a scale that is fixed already, as the reader will have it.
void Round(const float* x, float scale, float low, float high, Group* group) {
  group->scale = HalfOfFloat(scale);
  const float stored = FloatOfHalf(group->scale);
  if (stored == 0) return;
  for (int64_t i = 0; i < kGroupColumns; ++i) {
    group->q[i] = static_cast<int8_t>(
        std::clamp(std::nearbyint(x[i] / stored), low, high));
  }
}

Group RoundToEight(const float* x) {
  Group group;
  Round(x, LargestMagnitude(x) / 127.0f, -127, 127, &group);
  return group;
}

// The scale with the least squared error among a few: [-8, 7] is not
// symmetric, so the value of largest magnitude takes the side of -8, at a step
// from 7 to 9.4 units; for the q that such a step gives, the best scale follows
// (least squares).
Group RoundToFour(const float* x) {
  float extreme = 0;
  for (int64_t i = 0; i < kGroupColumns; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  Group group;
  if (std::fabs(extreme) < kSmallestGroup) return group;
  float best_gain = 0;
  float best_scale = 0;
  for (int step = 0; step < kUnitSteps; ++step) {
    const float inverse = -UnitsOfStep(step) / extreme;
    float xq = 0;
    float qq = 0;
    for (int64_t i = 0; i < kGroupColumns; ++i) {
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
  Round(x, best_scale, -8, 7, &group);
  return group;
}

}  // namespace

bool ScalarQuantizeBlock(DType dtype, const float* x, uint8_t* block) {
  uint8_t* const quads = block + kScaleBytesPerBlock;
  for (int64_t g = 0; g < 2; ++g) {
    for (int64_t row = 0; row < kPanelRows; ++row) {
      float values[kGroupColumns];
      for (int64_t i = 0; i < kGroupColumns; ++i) {
        values[i] = x[(g * kGroupColumns + i) * kPanelRows + row];
        if (!std::isfinite(values[i])) return false;
      }
      const Group group =
          dtype == DType::kQ8 ? RoundToEight(values) : RoundToFour(values);
      if (!std::isfinite(FloatOfHalf(group.scale))) return false;
      std::memcpy(block + (g * kPanelRows + row) * sizeof(group.scale),
                  &group.scale, sizeof(group.scale));
      for (int64_t i = 0; i < kGroupColumns; ++i) {
        const int64_t column = dtype == DType::kQ8 ? g * kGroupColumns + i : i;
        uint8_t* const byte =
            quads + (column / kQuadColumns * kPanelRows + row) * kQuadColumns +
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
  return true;
}

}  // namespace switchyard::kernels
