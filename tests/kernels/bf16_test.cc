// round_to_bf16 and bf16_matmul: the same bits as the scalar reference on every
// instruction set, whatever the mode of the thread, within the sizes given; and
// the scalar reference against the definition.

#include "kernels/bf16.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/kernel_table.h"
#include "kernels/matrix.h"
#include "tests/kernels/guarded_buffer.h"
#include "tests/kernels/kernel_testing.h"

namespace switchyard::kernels {
namespace {

// What a matrix of bf16 holds. kTiny: products of two are around 2^-126, where
// results are flushed. kAnyBits: infinities, NaN and subnormals among others.
enum class Contents { kOrdinary, kTiny, kSpecial, kAnyBits };
constexpr Contents kAllContents[] = {Contents::kOrdinary, Contents::kTiny,
                                     Contents::kSpecial, Contents::kAnyBits};

std::vector<uint16_t> RandomBf16(int64_t n, uint32_t seed, Contents contents) {
  constexpr uint16_t kSpecial[] = {
      0x0000, 0x8000, 0x0001, 0x807f, 0x0080, 0x8080,  // up to 2^-126
      0x3f80, 0xbf80, 0x7f7f, 0xff7f, 0x7f80, 0xff80,  // 1, largest, infinite
  };
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(static_cast<size_t>(n));
  for (uint16_t& value : values) {
    switch (contents) {
      case Contents::kOrdinary:
        value = Bf16OfFloat(normal(rng));
        break;
      case Contents::kTiny:
        value = Bf16OfFloat(
            std::ldexp(normal(rng), -63 - static_cast<int>(rng() % 12)));
        break;
      case Contents::kSpecial:
        value = kSpecial[rng() % std::size(kSpecial)];
        break;
      case Contents::kAnyBits:
        value = static_cast<uint16_t>(rng());
        break;
    }
  }
  return values;
}

// In guarded memory, at odd multiples of 2 bytes: a file promises no more.
class Bf16Matrix {
 public:
  Bf16Matrix(int64_t rows, int64_t cols, std::vector<uint16_t> values)
      : buffer_(values.size() * sizeof(uint16_t)), rows_(rows), cols_(cols) {
    if (!values.empty()) {
      std::memcpy(buffer_.data(), values.data(),
                  values.size() * sizeof(uint16_t));
    }
  }
  Bf16Matrix(int64_t rows, int64_t cols, uint32_t seed,
             Contents contents = Contents::kOrdinary)
      : Bf16Matrix(rows, cols, RandomBf16(rows * cols, seed, contents)) {}

  WeightView view() const {
    return {buffer_.data(), DType::kBF16Dot, rows_, cols_};
  }
  const uint16_t* row(int64_t r) const {
    return static_cast<const uint16_t*>(buffer_.data()) + r * cols_;
  }

 private:
  GuardedBuffer buffer_;
  const int64_t rows_;
  const int64_t cols_;
};

using Bf16Test = KernelsTest;
SWITCHYARD_FOR_ALL_KERNELS(Bf16Test);

// `tokens` rows of x with all their columns, by both tables.
void CompareMatmul(const KernelTable& kernels, const KernelTable& reference,
                   const Bf16Matrix& weight, int64_t row_begin, int64_t row_end,
                   const Bf16Matrix& x, int64_t tokens, int64_t y_gap) {
  const WeightView view = weight.view();
  const int64_t y_stride = row_end - row_begin + y_gap;
  const int64_t floats = tokens == 0 ? 0 : tokens * y_stride - y_gap;
  GuardedBuffer actual(static_cast<size_t>(floats) * sizeof(float));
  std::vector<float> expected(static_cast<size_t>(floats));
  kernels.bf16_matmul(view, row_begin, row_end, x.row(0), view.cols, tokens,
                      actual.floats(), y_stride);
  reference.bf16_matmul(view, row_begin, row_end, x.row(0), view.cols, tokens,
                        expected.data(), y_stride);
  for (int64_t t = 0; t < tokens; ++t) {
    ASSERT_TRUE(SameBits(actual.floats() + t * y_stride,
                         expected.data() + t * y_stride, row_end - row_begin))
        << "rows " << row_begin << "..." << row_end << " of " << view.rows
        << ", cols " << view.cols << ", token " << t << " of " << tokens;
  }
  EXPECT_TRUE(actual.GuardsIntact());
}

TEST_P(Bf16Test, MatmulOfEveryNumberOfColumns) {
  for (int64_t cols = 0; cols <= 140; ++cols) {
    for (const Contents contents : kAllContents) {
      const Bf16Matrix weight(11, cols, /*seed=*/1, contents);
      const Bf16Matrix x(7, cols, /*seed=*/2, contents);
      for (const int64_t tokens : {1, 2, 7}) {
        CompareMatmul(kernels(), reference(), weight, 0, 11, x, tokens,
                      /*y_gap=*/0);
      }
    }
  }
}

TEST_P(Bf16Test, MatmulOfEveryNumberOfRowsAndRowRange) {
  constexpr int64_t kCols = 70;
  const Bf16Matrix x(5, kCols, /*seed=*/4);
  for (int64_t rows = 1; rows <= 40; ++rows) {
    const Bf16Matrix weight(rows, kCols, /*seed=*/3);
    for (const int64_t tokens : {1, 4, 5}) {
      CompareMatmul(kernels(), reference(), weight, 0, rows, x, tokens,
                    /*y_gap=*/3);
      CompareMatmul(kernels(), reference(), weight, rows / 3, rows - rows / 4,
                    x, tokens, /*y_gap=*/0);
    }
  }
}

// Also beyond what is computed at once.
TEST_P(Bf16Test, MatmulOfEveryNumberOfTokens) {
  constexpr int64_t kRows = 9, kCols = 50, kTokens = 160;
  const Bf16Matrix weight(kRows, kCols, /*seed=*/5);
  const Bf16Matrix x(kTokens, kCols, /*seed=*/6);
  for (int64_t tokens = 0; tokens <= kTokens; ++tokens) {
    CompareMatmul(kernels(), reference(), weight, 0, kRows, x, tokens,
                  /*y_gap=*/1);
  }
}

TEST_P(Bf16Test, MatmulOfTheModelsSizes) {
  constexpr int64_t kRows = 130, kCols = 2048, kTokens = 77;
  const Bf16Matrix weight(kRows, kCols, /*seed=*/7);
  const Bf16Matrix x(kTokens, kCols, /*seed=*/8);
  CompareMatmul(kernels(), reference(), weight, 0, kRows, x, kTokens, 0);
  // One row takes more than what rows of weights are cut by.
  constexpr int64_t kWide = 150'001;
  const Bf16Matrix wide(5, kWide, /*seed=*/9);
  const Bf16Matrix wide_x(3, kWide, /*seed=*/10);
  CompareMatmul(kernels(), reference(), wide, 0, 5, wide_x, 3, 0);
}

TEST_P(Bf16Test, MatmulOfAnyValuesHasTheBitsOfTheReference) {
  constexpr int64_t kRows = 13, kCols = 100, kTokens = 8;
  for (const Contents of_weight : kAllContents) {
    for (const Contents of_x : kAllContents) {
      for (uint32_t seed = 1; seed <= 20; ++seed) {
        const Bf16Matrix weight(kRows, kCols, seed, of_weight);
        const Bf16Matrix x(kTokens, kCols, seed + 1000, of_x);
        CompareMatmul(kernels(), reference(), weight, 0, kRows, x, kTokens, 0);
      }
    }
  }
}

// Where 24 bits above 2^-126 and the coarser ones below it round apart: lane 0
// holds 2^-126 from its odd column, and the even one takes some eighths of the
// last place away.
TEST_P(Bf16Test, MatmulFlushesWhatIsTinyAfterRounding) {
  constexpr int64_t kCols = 2;
  for (const float sign : {1.0f, -1.0f}) {
    for (int eighths = 0; eighths <= 16; ++eighths) {
      // The last place is 2^-149, and an eighth of it a product of normals.
      const Bf16Matrix weight(
          1, kCols,
          {Bf16OfFloat(std::ldexp(static_cast<float>(eighths), -32)),
           Bf16OfFloat(0x1p-63f)});
      const Bf16Matrix x(
          1, kCols,
          {Bf16OfFloat(-sign * 0x1p-120f), Bf16OfFloat(sign * 0x1p-63f)});
      CompareMatmul(kernels(), reference(), weight, 0, 1, x, 1, 0);
      float y = 0;
      kernels().bf16_matmul(weight.view(), 0, 1, x.row(0), kCols, 1, &y, 1);
      // A quarter of the place is a tie between 2^-126 and the number of 24
      // bits below it, and goes to the even one.
      EXPECT_EQ(y, eighths <= 2 ? sign * 0x1p-126f : 0.0f) << eighths;
    }
  }
}

// Subnormal weights and activations count as zeros, and what a sum of lanes
// leaves below 2^-126 is zero, too.
TEST_P(Bf16Test, MatmulKnowsNoSubnormals) {
  constexpr int64_t kCols = 3;
  const auto product = [&](std::vector<float> w, std::vector<float> x) {
    std::vector<uint16_t> w_bits, x_bits;
    for (const float value : w) w_bits.push_back(Bf16OfFloat(value));
    for (const float value : x) x_bits.push_back(Bf16OfFloat(value));
    const Bf16Matrix weight(1, kCols, std::move(w_bits));
    const Bf16Matrix row(1, kCols, std::move(x_bits));
    float y = -1;
    kernels().bf16_matmul(weight.view(), 0, 1, row.row(0), kCols, 1, &y, 1);
    return y;
  };
  EXPECT_EQ(product({0x1p-127f, 0, 0}, {0x1p+100f, 0, 0}), 0);
  EXPECT_EQ(product({0x1p+100f, 0, 0}, {0x1p-127f, 0, 0}), 0);
  EXPECT_EQ(product({0x1p-126f, 0, 0}, {0x1p+100f, 0, 0}), 0x1p-26f);
  // In one lane, and over two: 1.5 * 2^-126 - 2^-126.
  EXPECT_EQ(product({0x1.8p-63f, -0x1p-63f, 0}, {0x1p-63f, 0x1p-63f, 0}), 0);
  EXPECT_EQ(product({0x1.8p-63f, 0, -0x1p-63f}, {0x1p-63f, 0, 0x1p-63f}), 0);
  EXPECT_EQ(product({0x1.8p-63f, 0, 0x1p-63f}, {0x1p-63f, 0, 0x1p-63f}),
            0x1.4p-125f);
}

TEST_P(Bf16Test, MatmulAgreesWithDouble) {
  constexpr int64_t kRows = 9, kTokens = 3;
  for (const int64_t cols : kLengths) {
    const Bf16Matrix weight(kRows, cols, /*seed=*/11);
    const Bf16Matrix x(kTokens, cols, /*seed=*/12);
    std::vector<float> y(kTokens * kRows);
    kernels().bf16_matmul(weight.view(), 0, kRows, x.row(0), cols, kTokens,
                          y.data(), kRows);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t t = 0; t < kTokens; ++t) {
        double sum = 0, magnitude = 0;
        for (int64_t c = 0; c < cols; ++c) {
          const double product =
              static_cast<double>(FloatOfBf16(weight.row(r)[c])) *
              FloatOfBf16(x.row(t)[c]);
          sum += product;
          magnitude += std::abs(product);
        }
        const double roundings = static_cast<double>(cols) / 16 + 6;
        EXPECT_TRUE(
            Near(y[t * kRows + r], sum, roundings * kFloatEpsilon * magnitude))
            << "cols " << cols;
      }
    }
  }
}

// Its twin in f32 differs by the rounding of the activations alone: by 2^-9 of
// each product at most, and by the order of its sums.
TEST_P(Bf16Test, MatmulIsNearTheProductWithFloats) {
  constexpr int64_t kRows = 33, kCols = 2048, kTokens = 5;
  const Bf16Matrix weight(kRows, kCols, /*seed=*/13);
  const std::vector<float> x = RandomFloats(kTokens * kCols, /*seed=*/14);
  std::vector<uint16_t> rounded(x.size());
  kernels().round_to_bf16(x.data(), kTokens * kCols, rounded.data());
  std::vector<float> y(kTokens * kRows), plain(kTokens * kRows);
  kernels().bf16_matmul(weight.view(), 0, kRows, rounded.data(), kCols, kTokens,
                        y.data(), kRows);
  WeightView twin = weight.view();
  twin.dtype = DType::kBF16;
  kernels().matmul(twin, 0, kRows, x.data(), kCols, kTokens, plain.data(),
                   kRows);
  int differ = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t r = 0; r < kRows; ++r) {
      double magnitude = 0;
      for (int64_t c = 0; c < kCols; ++c) {
        magnitude +=
            std::abs(static_cast<double>(FloatOfBf16(weight.row(r)[c])) *
                     x[t * kCols + c]);
      }
      const int64_t i = t * kRows + r;
      EXPECT_TRUE(Near(y[i], plain[i], 0x1.01p-9 * magnitude));
      differ += y[i] != plain[i] ? 1 : 0;
    }
  }
  EXPECT_GT(differ, kTokens * kRows / 2);
}

// Promise 2 of the design: alone or in any batch, by any split of the rows.
TEST_P(Bf16Test, MatmulRowDoesNotDependOnTheBatch) {
  constexpr int64_t kRows = 30, kCols = 90, kTokens = 80;
  const Bf16Matrix weight(kRows, kCols, /*seed=*/15);
  const Bf16Matrix x(kTokens, kCols, /*seed=*/16);
  std::vector<float> together(kTokens * kRows);
  kernels().bf16_matmul(weight.view(), 0, kRows, x.row(0), kCols, kTokens,
                        together.data(), kRows);
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t r = 0; r < kRows; r += 7) {
      const int64_t end = std::min<int64_t>(r + 7, kRows);
      float alone[7];
      kernels().bf16_matmul(weight.view(), r, end, x.row(t), kCols, 1, alone,
                            7);
      EXPECT_TRUE(SameBits(alone, together.data() + t * kRows + r, end - r));
    }
  }
}

#if defined(__x86_64__)
// The same bits with subnormals flushed by the thread's mode and without, and
// the mode is the caller's again.
TEST_P(Bf16Test, MatmulLeavesTheThreadsModeAlone) {
  constexpr int64_t kRows = 9, kCols = 100, kTokens = 5;
  const Bf16Matrix weight(kRows, kCols, /*seed=*/17, Contents::kTiny);
  const Bf16Matrix x(kTokens, kCols, /*seed=*/18, Contents::kTiny);
  const unsigned before = _mm_getcsr();
  std::vector<float> y[2];
  for (const unsigned mode : {0x0000u, 0x8040u}) {
    std::vector<float>& result = y[mode == 0 ? 0 : 1];
    result.resize(kTokens * kRows);
    _mm_setcsr(before | mode);
    const unsigned set = _mm_getcsr();
    kernels().bf16_matmul(weight.view(), 0, kRows, x.row(0), kCols, kTokens,
                          result.data(), kRows);
    const unsigned after = _mm_getcsr();
    _mm_setcsr(before);
    // The lowest bits tell what happened, not what shall.
    EXPECT_EQ(after & ~0x3fu, set & ~0x3fu);
  }
  EXPECT_TRUE(SameBits(y[0].data(), y[1].data(), kTokens * kRows));
}
#endif

TEST_P(Bf16Test, RoundsEveryFloatOfSomeKinds) {
  // All upper halves, with lower halves around the ties.
  constexpr uint32_t kLower[] = {0x0000, 0x0001, 0x7fff, 0x8000,
                                 0x8001, 0xffff, 0x1234};
  std::vector<float> x;
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const uint32_t lower : kLower) {
      x.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  const auto n = static_cast<int64_t>(x.size());
  std::vector<uint16_t> actual(x.size()), expected(x.size());
  kernels().round_to_bf16(x.data(), n, actual.data());
  reference().round_to_bf16(x.data(), n, expected.data());
  EXPECT_EQ(actual, expected);
  for (size_t i = 0; i < x.size(); ++i) {
    const float y = FloatOfBf16(actual[i]);
    if (std::isnan(x[i])) {
      ASSERT_TRUE(std::isnan(y));
    } else if (std::isinf(y)) {
      ASSERT_GE(std::abs(x[i]), 0x1.ffp127f);
    } else {
      // Not farther than either neighbour.
      const auto error = [&](int step) {
        const float other =
            FloatOfBf16(static_cast<uint16_t>(actual[i] + step));
        return std::isfinite(other)
                   ? std::abs(static_cast<double>(x[i]) - other)
                   : std::numeric_limits<double>::infinity();
      };
      ASSERT_LE(error(0), error(1));
      if ((actual[i] & 0x7fff) != 0) {
        ASSERT_LE(error(0), error(-1));
      }
    }
  }
}

TEST_P(Bf16Test, RoundsWithinTheSizesGiven) {
  for (int64_t n = 0; n <= 70; ++n) {
    const std::vector<float> x = RandomFloats(n, /*seed=*/19);
    const auto guarded = Guarded(x);
    GuardedBuffer y(static_cast<size_t>(n) * sizeof(uint16_t));
    kernels().round_to_bf16(guarded->floats(), n,
                            static_cast<uint16_t*>(y.data()));
    EXPECT_TRUE(y.GuardsIntact());
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(static_cast<const uint16_t*>(y.data())[i], Bf16OfFloat(x[i]));
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
