// Flushing is done here by hand, so that nothing depends on the processor's
// mode.

#include "kernels/scalar/bf16.h"

#include <cmath>
#include <cstring>

#include "kernels/bf16.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kLanes = 16;
constexpr float kSmallestNormal = 0x1p-126f;

// Zero of x's sign if x is subnormal.
float Flush(float x) {
  return std::fabs(x) < kSmallestNormal ? std::copysign(0.0f, x) : x;
}

// The fused a * b + c, flushed before and after. What is flushed after is what
// is below the smallest normal number when it is rounded to 24 bits, as if
// exponents had no end. std::fma rounds to fewer bits there, and so makes that
// number also of some that are to be flushed: those below it by more than a
// quarter of its last place.
float FlushedMulAdd(float a, float b, float c) {
  a = Flush(a);
  b = Flush(b);
  c = Flush(c);
  const float sum = std::fma(a, b, c);
  if (std::fabs(sum) != kSmallestNormal) return Flush(sum);
  constexpr double kLimit = 0x1p-126 - 0x1p-151;
  const double sign = sum < 0 ? -1.0 : 1.0;
  // c - kLimit is exact: a c whose places are too far above for that has no
  // sum with a product of 16 bits that comes here.
  const bool below = std::fma(sign * a, static_cast<double>(b),
                              sign * static_cast<double>(c) - kLimit) < 0;
  return below ? std::copysign(0.0f, sum) : sum;
}

// Column c of a row of `cols`, +0 beyond them.
float ColumnOf(const char* row, int64_t cols, int64_t c) {
  if (c >= cols) return 0;
  uint16_t bits;
  std::memcpy(&bits, row + c * static_cast<int64_t>(sizeof(bits)),
              sizeof(bits));
  return FloatOfBf16(bits);
}

float Product(const char* row, const char* x, int64_t cols) {
  float lanes[kLanes] = {};
  for (int64_t first = 0; first < cols; first += 2 * kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t even = first + 2 * lane;
      lanes[lane] = FlushedMulAdd(ColumnOf(row, cols, even + 1),
                                  ColumnOf(x, cols, even + 1), lanes[lane]);
      lanes[lane] = FlushedMulAdd(ColumnOf(row, cols, even),
                                  ColumnOf(x, cols, even), lanes[lane]);
    }
  }
  for (int64_t width = kLanes / 2; width >= 1; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) {
      lanes[lane] = Flush(lanes[lane] + lanes[lane + width]);
    }
  }
  return lanes[0];
}

}  // namespace

void ScalarRoundToBf16(const float* x, int64_t n, uint16_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = Bf16OfFloat(x[i]);
}

void ScalarBf16Matmul(const WeightView& weight, int64_t row_begin,
                      int64_t row_end, const uint16_t* x, int64_t x_stride,
                      int64_t tokens, float* y, int64_t y_stride) {
  const char* const data = static_cast<const char*>(weight.data);
  const int64_t row_bytes =
      weight.cols * static_cast<int64_t>(sizeof(uint16_t));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = row_begin; r < row_end; ++r) {
      y[t * y_stride + (r - row_begin)] =
          Product(data + r * row_bytes,
                  reinterpret_cast<const char*>(x + t * x_stride), weight.cols);
    }
  }
}

}  // namespace switchyard::kernels
