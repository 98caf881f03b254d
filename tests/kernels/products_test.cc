// matmul, widen, dot and axpy: the same bits as the
// scalar reference on every instruction set, within the sizes given, and near
// the definition in double.

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/kernel_table.h"
#include "kernels/matrix.h"
#include "tests/kernels/guarded_buffer.h"
#include "tests/kernels/kernel_testing.h"

namespace switchyard::kernels {
namespace {

constexpr DType kDTypes[] = {DType::kBF16, DType::kF16, DType::kF32};

// Weights as a checkpoint has them: any bits of two bytes (so subnormals,
// infinities and NaN occur when `values` says so), or floats.
class Weights {
 public:
  Weights(DType dtype, int64_t rows, int64_t cols, uint32_t seed,
          Values values = Values::kOrdinary)
      // 2 bytes of slack put float weights on a 2-byte boundary.
      : buffer_(static_cast<size_t>(rows * cols) * DTypeBytes(dtype),
                dtype == DType::kF32 ? 2 : 0),
        view_{buffer_.data(), dtype, rows, cols} {
    const std::vector<float> floats = RandomFloats(rows * cols, seed, values);
    std::mt19937 rng(seed);
    char* const bytes = static_cast<char*>(buffer_.data());
    for (int64_t i = 0; i < rows * cols; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(floats[i]);
      if (dtype == DType::kF32) {
        std::memcpy(bytes + 4 * i, &bits, 4);
        continue;
      }
      uint16_t half = static_cast<uint16_t>(bits >> 16);
      if (dtype == DType::kF16) {
        half = static_cast<uint16_t>(rng());
        // Exponent 31 is infinity or NaN: clear a bit of it.
        if (values != Values::kNonFinite) half &= 0xbfff;
      }
      std::memcpy(bytes + 2 * i, &half, 2);
    }
  }

  const WeightView& view() const { return view_; }

  // Row r, widened by a rule of the test's own.
  std::vector<float> Row(int64_t r) const {
    std::vector<float> row;
    const char* const bytes = static_cast<const char*>(view_.data);
    for (int64_t i = r * view_.cols; i < (r + 1) * view_.cols; ++i) {
      if (view_.dtype == DType::kF32) {
        float value;
        std::memcpy(&value, bytes + 4 * i, 4);
        row.push_back(value);
        continue;
      }
      uint16_t half;
      std::memcpy(&half, bytes + 2 * i, 2);
      row.push_back(
          view_.dtype == DType::kBF16
              ? std::bit_cast<float>(static_cast<uint32_t>(half) << 16)
              : FromHalf(half));
    }
    return row;
  }

 private:
  static float FromHalf(uint16_t half) {
    const float sign = (half & 0x8000) != 0 ? -1.0f : 1.0f;
    const int exponent = half >> 10 & 0x1f;
    const int mantissa = half & 0x3ff;
    if (exponent == 31) {
      return mantissa == 0 ? sign * std::numeric_limits<float>::infinity()
                           : std::numeric_limits<float>::quiet_NaN();
    }
    // (1 + mantissa / 1024) * 2^(exponent - 15), or mantissa / 1024 * 2^-14.
    return exponent == 0
               ? sign * std::ldexp(static_cast<float>(mantissa), -24)
               : sign * std::ldexp(static_cast<float>(mantissa + 1024),
                                   exponent - 25);
  }

  GuardedBuffer buffer_;
  WeightView view_;
};

using ProductsTest = KernelsTest;
SWITCHYARD_FOR_ALL_KERNELS(ProductsTest);

TEST_P(ProductsTest, WidensEveryHalfExactly) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    std::vector<uint16_t> halves(0x10000);
    for (size_t i = 0; i < halves.size(); ++i) {
      halves[i] = static_cast<uint16_t>(i);
    }
    std::vector<float> actual(halves.size());
    std::vector<float> expected(halves.size());
    kernels().widen(halves.data(), dtype, 0x10000, actual.data());
    reference().widen(halves.data(), dtype, 0x10000, expected.data());
    // NaN too: its payload is moved, and made quiet, in one way.
    EXPECT_EQ(0, std::memcmp(actual.data(), expected.data(),
                             actual.size() * sizeof(float)));
  }
}

TEST_P(ProductsTest, WidenAgreesWithTheFormats) {
  for (const DType dtype : kDTypes) {
    for (const int64_t n : kLengths) {
      SCOPED_TRACE(n);
      const Weights weights(dtype, 1, n, /*seed=*/1, Values::kNonFinite);
      GuardedBuffer y(n * sizeof(float));
      kernels().widen(weights.view().data, dtype, n, y.floats());
      EXPECT_TRUE(SameBits(y.floats(), weights.Row(0).data(), n));
      EXPECT_TRUE(y.GuardsIntact());
    }
  }
}

// One matmul by both tables on guarded memory.
void CompareMatmul(const KernelTable& kernels, const KernelTable& reference,
                   const Weights& weights, int64_t row_begin, int64_t row_end,
                   int64_t tokens, int64_t x_gap, int64_t y_gap,
                   Values values) {
  const int64_t cols = weights.view().cols;
  const int64_t x_stride = cols + x_gap;
  const int64_t y_stride = row_end - row_begin + y_gap;
  // The last row of x and y has no gap behind it.
  const int64_t x_floats = tokens == 0 ? 0 : tokens * x_stride - x_gap;
  const int64_t y_floats = tokens == 0 ? 0 : tokens * y_stride - y_gap;
  auto x = Guarded(RandomFloats(x_floats, /*seed=*/7, values));
  GuardedBuffer actual(y_floats * sizeof(float));
  GuardedBuffer expected(y_floats * sizeof(float));

  kernels.matmul(weights.view(), row_begin, row_end, x->floats(), x_stride,
                 tokens, actual.floats(), y_stride);
  reference.matmul(weights.view(), row_begin, row_end, x->floats(), x_stride,
                   tokens, expected.floats(), y_stride);

  // Gaps between the rows of y too: both must leave the pattern in them.
  EXPECT_TRUE(SameBits(actual.floats(), expected.floats(), y_floats))
      << "rows " << row_begin << "..." << row_end << ", cols " << cols
      << ", tokens " << tokens << ", dtype "
      << static_cast<int>(weights.view().dtype);
  EXPECT_TRUE(actual.GuardsIntact());
}

TEST_P(ProductsTest, MatmulHasTheBitsOfTheReference) {
  for (const DType dtype : kDTypes) {
    for (const int64_t cols : kLengths) {
      const Weights weights(dtype, 7, cols, /*seed=*/3);
      for (const int64_t tokens : {0, 1, 2, 3, 5}) {
        CompareMatmul(kernels(), reference(), weights, 0, 7, tokens,
                      /*x_gap=*/0, /*y_gap=*/0, Values::kOrdinary);
      }
    }
  }
}

TEST_P(ProductsTest, MatmulOfEveryTokenCountAndRowRange) {
  for (const DType dtype : kDTypes) {
    for (const int64_t cols : {33, 64}) {
      const Weights weights(dtype, 13, cols, /*seed=*/4);
      for (int64_t tokens = 1; tokens <= 17; ++tokens) {
        for (int64_t begin = 0; begin <= 13; begin += 3) {
          for (int64_t end = begin; end <= 13; ++end) {
            CompareMatmul(kernels(), reference(), weights, begin, end, tokens,
                          /*x_gap=*/3, /*y_gap=*/5, Values::kOrdinary);
          }
        }
      }
    }
  }
}

TEST_P(ProductsTest, MatmulOfExtremeValues) {
  for (const Values values : kAllValues) {
    for (const DType dtype : kDTypes) {
      for (const int64_t cols : {5, 16, 40, 129}) {
        for (uint32_t seed = 1; seed <= 20; ++seed) {
          const Weights weights(dtype, 5, cols, seed, values);
          CompareMatmul(kernels(), reference(), weights, 0, 5, 3, 0, 0, values);
        }
      }
    }
  }
}

// Promise 2 of the design: alone or in any batch, by any split of the rows.
TEST_P(ProductsTest, MatmulRowDoesNotDependOnTheBatch) {
  constexpr int64_t kRows = 11, kCols = 100, kTokens = 9;
  for (const DType dtype : kDTypes) {
    const Weights weights(dtype, kRows, kCols, /*seed=*/5);
    const std::vector<float> x = RandomFloats(kTokens * kCols, /*seed=*/6);
    std::vector<float> together(kTokens * kRows);
    kernels().matmul(weights.view(), 0, kRows, x.data(), kCols, kTokens,
                     together.data(), kRows);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t r = 0; r < kRows; ++r) {
        float alone = 0;
        kernels().matmul(weights.view(), r, r + 1, x.data() + t * kCols, kCols,
                         1, &alone, 1);
        EXPECT_TRUE(SameBits(alone, together[t * kRows + r]));
      }
    }
  }
}

TEST_P(ProductsTest, MatmulAgreesWithDouble) {
  for (const DType dtype : kDTypes) {
    for (const int64_t cols : kLengths) {
      constexpr int64_t kRows = 5, kTokens = 3;
      const Weights weights(dtype, kRows, cols, /*seed=*/8);
      const std::vector<float> x = RandomFloats(kTokens * cols, /*seed=*/9);
      std::vector<float> y(kTokens * kRows);
      kernels().matmul(weights.view(), 0, kRows, x.data(), cols, kTokens,
                       y.data(), kRows);
      for (int64_t r = 0; r < kRows; ++r) {
        const std::vector<float> row = weights.Row(r);
        for (int64_t t = 0; t < kTokens; ++t) {
          double sum = 0, magnitude = 0;
          for (int64_t c = 0; c < cols; ++c) {
            const double product =
                static_cast<double>(row[c]) * x[t * cols + c];
            sum += product;
            magnitude += std::abs(product);
          }
          // cols / 16 roundings in a lane and four in the tree.
          const double roundings = static_cast<double>(cols) / 16 + 5;
          EXPECT_TRUE(Near(y[t * kRows + r], sum,
                           roundings * kFloatEpsilon * magnitude))
              << "cols " << cols;
        }
      }
    }
  }
}

TEST_P(ProductsTest, DotHasTheBitsOfTheReferenceAndOfMatmul) {
  for (const Values values : kAllValues) {
    for (const int64_t n : kLengths) {
      SCOPED_TRACE(n);
      auto a = Guarded(RandomFloats(n, /*seed=*/1, values));
      auto b = Guarded(RandomFloats(n, /*seed=*/2, values));
      const float expected = reference().dot(a->floats(), b->floats(), n);
      EXPECT_TRUE(
          SameBits(kernels().dot(a->floats(), b->floats(), n), expected));
      float y = 0;
      kernels().matmul({a->data(), DType::kF32, 1, n}, 0, 1, b->floats(), n, 1,
                       &y, 1);
      EXPECT_TRUE(SameBits(y, expected));
    }
  }
}

// Lanes that a short tail does not reach keep their -0: adding the +0 of a
// masked load would turn a sum of -0 into +0.
TEST_P(ProductsTest, TailLeavesOtherLanesAlone) {
  std::vector<float> a(17, -1e-30f);
  const std::vector<float> b(17, 1e-30f);  // products round to -0
  EXPECT_TRUE(SameBits(kernels().dot(a.data(), b.data(), 17), -0.0f));
  EXPECT_TRUE(SameBits(reference().dot(a.data(), b.data(), 17), -0.0f));
}

TEST_P(ProductsTest, AxpyHasTheBitsOfTheReference) {
  for (const Values values : kAllValues) {
    for (const int64_t n : kLengths) {
      SCOPED_TRACE(n);
      auto x = Guarded(RandomFloats(n, /*seed=*/1, values));
      const std::vector<float> before = RandomFloats(n, /*seed=*/2, values);
      auto actual = Guarded(before);
      auto expected = Guarded(before);
      kernels().axpy(-0.3f, x->floats(), actual->floats(), n);
      reference().axpy(-0.3f, x->floats(), expected->floats(), n);
      EXPECT_TRUE(SameBits(actual->floats(), expected->floats(), n));
      EXPECT_TRUE(actual->GuardsIntact());
      if (values == Values::kOrdinary) {
        for (int64_t i = 0; i < n; ++i) {
          const double exact =
              before[i] + static_cast<double>(-0.3f) * x->floats()[i];
          EXPECT_TRUE(Near(actual->floats()[i], exact,
                           1.001 * kFloatEpsilon * std::abs(exact)));
        }
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
