// quantize_block, quantize_row and quantized_matmul: the same bits as the
// scalar reference on every instruction set, within the sizes given, and the
// scalar reference against the definition in double.

#include "kernels/quantized.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/amx_kernels.h"
#include "kernels/half.h"
#include "kernels/kernel_table.h"
#include "kernels/matrix.h"
#include "kernels/simd/amx_tiles.h"
#include "kernels/weight_codec.h"
#include "tests/kernels/amx_model.h"
#include "tests/kernels/guarded_buffer.h"
#include "tests/kernels/kernel_testing.h"

namespace switchyard::kernels {
namespace {

constexpr DType kFormats[] = {DType::kQ8, DType::kQ4};

// What a quantised matrix's bytes are: those of an encoder; any bits that it
// could write, with scales from subnormal to huge; or the extremes of q alone.
enum class Contents { kEncoded, kAnyBits, kLowest, kHighest, kAlternating };

// A quantised matrix in guarded memory, aligned to 64 bytes as the contract
// wants it: whole blocks end at the page that may not be touched.
class QuantizedMatrix {
 public:
  QuantizedMatrix(DType dtype, int64_t rows, int64_t cols, uint32_t seed,
                  Contents contents = Contents::kEncoded)
      : buffer_(static_cast<size_t>(WeightBytes(dtype, rows, cols))),
        view_{buffer_.data(), dtype, rows, cols} {
    uint8_t* const bytes = static_cast<uint8_t*>(buffer_.data());
    const int64_t panel_bytes = PanelBytes(dtype, cols);
    if (contents == Contents::kEncoded) {
      std::vector<float> floats = RandomFloats(rows * cols, seed);
      for (int64_t r = 0; r < rows; r += kPanelRows) {
        EXPECT_TRUE(QuantizePanel(dtype, floats.data() + r * cols,
                                  std::min(kPanelRows, rows - r), cols,
                                  bytes + r / kPanelRows * panel_bytes));
      }
      return;
    }
    std::mt19937 rng(seed);
    const int64_t block_bytes = BlockBytes(dtype);
    for (int64_t b = 0; b < WeightBytes(dtype, rows, cols); b += block_bytes) {
      for (int64_t i = 0; i < block_bytes; ++i) {
        bytes[b + i] = Byte(contents, dtype, i, rng);
      }
      for (int64_t i = 0; i < kScaleBytesPerBlock / 2; ++i) {
        uint16_t scale = contents == Contents::kAnyBits
                             ? static_cast<uint16_t>(rng())
                             : HalfOfFloat(1.0f);
        // Exponent 31 is infinity or NaN: clear a bit of it.
        scale &= 0xbfff;
        std::memcpy(bytes + b + 2 * i, &scale, sizeof(scale));
      }
    }
  }

  const WeightView& view() const { return view_; }

 private:
  static uint8_t Byte(Contents contents, DType dtype, int64_t i,
                      std::mt19937& rng) {
    const uint8_t lowest = dtype == DType::kQ8 ? 1 : 0;  // q = -127 or -8
    switch (contents) {
      case Contents::kLowest:
        return lowest;
      case Contents::kHighest:
        return 0xff;
      case Contents::kAlternating:
        return i % 2 == 0 ? lowest : 0xff;
      case Contents::kEncoded:
      case Contents::kAnyBits:
        break;
    }
    return std::max(lowest, static_cast<uint8_t>(rng()));
  }

  GuardedBuffer buffer_;
  WeightView view_;
};

// Quantised activations in guarded memory.
class Activations {
 public:
  Activations(int64_t tokens, int64_t cols)
      : tokens_(tokens),
        cols_(cols),
        values_(static_cast<size_t>(tokens * PaddedColumns(cols))),
        scales_(static_cast<size_t>(tokens * NumGroups(cols)) * sizeof(float)),
        sums_(static_cast<size_t>(tokens * NumGroups(cols)) * sizeof(int32_t)) {
  }
  // By `kernels`, from rows of x.
  Activations(const KernelTable& kernels, const std::vector<float>& x,
              int64_t tokens, int64_t cols)
      : Activations(tokens, cols) {
    for (int64_t t = 0; t < tokens; ++t) {
      const std::vector<float> row(x.begin() + t * cols,
                                   x.begin() + (t + 1) * cols);
      auto guarded = Guarded(row);
      kernels.quantize_row(
          guarded->floats(), cols, values() + t * PaddedColumns(cols),
          scales() + t * NumGroups(cols), sums() + t * NumGroups(cols));
    }
  }
  // Every value is +`magnitude` or, where `alternate`, -`magnitude` in odd
  // columns; every scale 1.
  static std::unique_ptr<Activations> Constant(int64_t tokens, int64_t cols,
                                               int8_t magnitude,
                                               bool alternate) {
    auto x = std::make_unique<Activations>(tokens, cols);
    for (int64_t i = 0; i < tokens * PaddedColumns(cols); ++i) {
      x->values()[i] = alternate && i % 2 == 1 ? -magnitude : magnitude;
    }
    for (int64_t g = 0; g < tokens * NumGroups(cols); ++g) {
      x->scales()[g] = 1.0f;
      x->sums()[g] = alternate ? 0 : magnitude * kGroupColumns;
    }
    return x;
  }

  int8_t* values() { return static_cast<int8_t*>(values_.data()); }
  float* scales() { return scales_.floats(); }
  int32_t* sums() { return static_cast<int32_t*>(sums_.data()); }
  QuantizedRows view() { return {values(), scales(), sums(), cols_}; }
  // Those from row t on.
  QuantizedRows view(int64_t t) {
    return {values() + t * PaddedColumns(cols_),
            scales() + t * NumGroups(cols_), sums() + t * NumGroups(cols_),
            cols_};
  }

  bool GuardsIntact() const {
    return values_.GuardsIntact() && scales_.GuardsIntact() &&
           sums_.GuardsIntact();
  }
  bool SameAs(Activations& other) {
    return std::memcmp(values(), other.values(),
                       tokens_ * PaddedColumns(cols_)) == 0 &&
           std::memcmp(sums(), other.sums(),
                       tokens_ * NumGroups(cols_) * sizeof(int32_t)) == 0 &&
           SameBits(scales(), other.scales(), tokens_ * NumGroups(cols_));
  }

 private:
  const int64_t tokens_;
  const int64_t cols_;
  GuardedBuffer values_;
  GuardedBuffer scales_;
  GuardedBuffer sums_;
};

using QuantizedTest = KernelsTest;
SWITCHYARD_FOR_ALL_KERNELS(QuantizedTest);

#if defined(__x86_64__)
// AMX's body on a model of its instructions, and, where there are such, on
// them.
std::vector<const KernelTable*> AmxTables() {
  std::vector<const KernelTable*> tables;
  for (const KernelTable* table : AvailableKernels()) {
    if (std::string(table->name) != "avx512") continue;
    static KernelTable modelled = *table;
    modelled.name = "modelled_amx";
    modelled.quantized_matmul = kModelledAmxQuantizedMatmul;
    tables.push_back(&modelled);
  }
  if (PrepareAmxKernels().ok()) {
    static KernelTable real = *PrepareAmxKernels()->table;
    real.quantized_matmul = kAvx512AmxQuantizedMatmul;
    tables.push_back(&real);
  }
  return tables;
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(QuantizedTest);
INSTANTIATE_TEST_SUITE_P(
    Amx, QuantizedTest, ::testing::ValuesIn(AmxTables()),
    [](const ::testing::TestParamInfo<const KernelTable*>& table) {
      return std::string(table.param->name);
    });
#endif

// One product by both tables on guarded memory.
void CompareMatmul(const KernelTable& kernels, const KernelTable& reference,
                   const QuantizedMatrix& weight, int64_t row_begin,
                   int64_t row_end, Activations& x, int64_t tokens,
                   int64_t y_gap) {
  const int64_t y_stride = row_end - row_begin + y_gap;
  // The last row of y has no gap behind it.
  const int64_t y_floats = tokens == 0 ? 0 : tokens * y_stride - y_gap;
  GuardedBuffer actual(y_floats * sizeof(float));
  GuardedBuffer expected(y_floats * sizeof(float));
  kernels.quantized_matmul(weight.view(), row_begin, row_end, x.view(), tokens,
                           actual.floats(), y_stride);
  reference.quantized_matmul(weight.view(), row_begin, row_end, x.view(),
                             tokens, expected.floats(), y_stride);
  // Gaps between the rows of y too: both must leave the pattern in them.
  EXPECT_TRUE(SameBits(actual.floats(), expected.floats(), y_floats))
      << "rows " << row_begin << "..." << row_end << " of "
      << weight.view().rows << ", cols " << weight.view().cols << ", tokens "
      << tokens << ", dtype " << static_cast<int>(weight.view().dtype);
  EXPECT_TRUE(actual.GuardsIntact());
}

TEST_P(QuantizedTest, MatmulOfEveryNumberOfColumns) {
  for (const DType dtype : kFormats) {
    for (int64_t cols = 0; cols <= 200; ++cols) {
      const QuantizedMatrix weight(dtype, 37, cols, /*seed=*/1);
      Activations x(reference(), RandomFloats(7 * cols, /*seed=*/2), 7, cols);
      for (const int64_t tokens : {1, 2, 7}) {
        CompareMatmul(kernels(), reference(), weight, 0, 37, x, tokens,
                      /*y_gap=*/0);
      }
    }
  }
}

TEST_P(QuantizedTest, MatmulOfEveryNumberOfRows) {
  for (const DType dtype : kFormats) {
    for (int64_t rows = 1; rows <= 50; ++rows) {
      const QuantizedMatrix weight(dtype, rows, 70, /*seed=*/3);
      Activations x(reference(), RandomFloats(5 * 70, /*seed=*/4), 5, 70);
      for (const int64_t tokens : {1, 4, 5}) {
        CompareMatmul(kernels(), reference(), weight, 0, rows, x, tokens,
                      /*y_gap=*/3);
      }
    }
  }
}

TEST_P(QuantizedTest, MatmulOfEveryNumberOfTokensAndRowRange) {
  constexpr int64_t kRows = 75, kCols = 130, kTokens = 40;
  for (const DType dtype : kFormats) {
    const QuantizedMatrix weight(dtype, kRows, kCols, /*seed=*/5);
    Activations x(reference(), RandomFloats(kTokens * kCols, /*seed=*/6),
                  kTokens, kCols);
    for (int64_t tokens = 0; tokens <= kTokens; ++tokens) {
      CompareMatmul(kernels(), reference(), weight, 0, kRows, x, tokens,
                    /*y_gap=*/1);
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>(0, 16),
                                       {16, 48},
                                       {32, 75},
                                       {64, 75},
                                       {48, 48}}) {
        CompareMatmul(kernels(), reference(), weight, begin, end, x, tokens,
                      /*y_gap=*/5);
      }
    }
  }
}

// More groups than any body takes at once, with one token and with several.
TEST_P(QuantizedTest, MatmulOfManyColumnsAndOfManyTokens) {
  for (const auto& [cols, tokens] :
       {std::pair<int64_t, int64_t>(300'000, 2), {2048, 150}}) {
    for (const DType dtype : kFormats) {
      const QuantizedMatrix weight(dtype, 18, cols, /*seed=*/7,
                                   Contents::kAnyBits);
      Activations x(kernels(), RandomFloats(tokens * cols, /*seed=*/8), tokens,
                    cols);
      CompareMatmul(kernels(), reference(), weight, 0, 18, x, tokens,
                    /*y_gap=*/0);
    }
  }
}

// Every product of a group has its largest magnitude and one sign, or they
// alternate: nothing may overflow or saturate on the way.
TEST_P(QuantizedTest, MatmulOfExtremesIsExact) {
  constexpr int64_t kRows = 33, kCols = 192;
  for (const DType dtype : kFormats) {
    for (const Contents contents :
         {Contents::kLowest, Contents::kHighest, Contents::kAlternating}) {
      const QuantizedMatrix weight(dtype, kRows, kCols, 0, contents);
      for (const int8_t magnitude : {int8_t{127}, int8_t{-127}}) {
        for (const bool alternate : {false, true}) {
          for (const int64_t tokens : {1, 4, 13}) {
            const auto x =
                Activations::Constant(tokens, kCols, magnitude, alternate);
            CompareMatmul(kernels(), reference(), weight, 0, kRows, *x, tokens,
                          0);
            std::vector<float> row(kCols);
            DequantizeRow(weight.view(), 0, row.data());
            double sum = 0;
            for (int64_t c = 0; c < kCols; ++c) {
              sum += static_cast<double>(row[c]) * x->values()[c];
            }
            std::vector<float> y(tokens * kRows);
            kernels().quantized_matmul(weight.view(), 0, kRows, x->view(),
                                       tokens, y.data(), kRows);
            // Whole numbers below 2^24.
            EXPECT_EQ(y[0], sum);
          }
        }
      }
    }
  }
}

TEST_P(QuantizedTest, MatmulOfAnyScalesHasTheBitsOfTheReference) {
  for (const Values values : kAllValues) {
    for (const DType dtype : kFormats) {
      for (uint32_t seed = 1; seed <= 20; ++seed) {
        constexpr int64_t kCols = 160, kTokens = 5;
        const QuantizedMatrix weight(dtype, 20, kCols, seed,
                                     Contents::kAnyBits);
        Activations x(reference(), RandomFloats(kTokens * kCols, seed, values),
                      kTokens, kCols);
        CompareMatmul(kernels(), reference(), weight, 0, 20, x, kTokens, 0);
      }
    }
  }
}

// A NaN or infinity among the activations is seen in every result of its row,
// and in no other.
TEST_P(QuantizedTest, WhatIsNotFiniteIsSeenInItsRowOnly) {
  constexpr int64_t kRows = 20, kCols = 100, kTokens = 7;
  for (const DType dtype : kFormats) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            -std::numeric_limits<float>::infinity()}) {
      const QuantizedMatrix weight(dtype, kRows, kCols, /*seed=*/9);
      std::vector<float> floats = RandomFloats(kTokens * kCols, /*seed=*/10);
      floats[3 * kCols + 99] = bad;
      Activations x(kernels(), floats, kTokens, kCols);
      std::vector<float> y(kTokens * kRows);
      kernels().quantized_matmul(weight.view(), 0, kRows, x.view(), kTokens,
                                 y.data(), kRows);
      for (int64_t i = 0; i < kTokens * kRows; ++i) {
        EXPECT_EQ(std::isnan(y[i]), i / kRows == 3) << i;
      }
    }
  }
}

// Promise 2 of the design: alone or in any batch, by any split of the rows.
TEST_P(QuantizedTest, MatmulRowDoesNotDependOnTheBatch) {
  constexpr int64_t kRows = 40, kCols = 100, kTokens = 25;
  for (const DType dtype : kFormats) {
    const QuantizedMatrix weight(dtype, kRows, kCols, /*seed=*/11);
    Activations x(kernels(), RandomFloats(kTokens * kCols, /*seed=*/12),
                  kTokens, kCols);
    std::vector<float> together(kTokens * kRows);
    kernels().quantized_matmul(weight.view(), 0, kRows, x.view(), kTokens,
                               together.data(), kRows);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t r = 0; r < kRows; r += kPanelRows) {
        const int64_t end = std::min(r + kPanelRows, kRows);
        float alone[kPanelRows];
        kernels().quantized_matmul(weight.view(), r, end, x.view(t), 1, alone,
                                   kPanelRows);
        EXPECT_TRUE(SameBits(alone, together.data() + t * kRows + r, end - r));
      }
    }
  }
}

TEST_P(QuantizedTest, MatmulAgreesWithDouble) {
  constexpr int64_t kRows = 19, kTokens = 3;
  for (const DType dtype : kFormats) {
    for (const int64_t cols : kLengths) {
      const QuantizedMatrix weight(dtype, kRows, cols, /*seed=*/13);
      Activations x(kernels(), RandomFloats(kTokens * cols, /*seed=*/14),
                    kTokens, cols);
      std::vector<float> y(kTokens * kRows);
      kernels().quantized_matmul(weight.view(), 0, kRows, x.view(), kTokens,
                                 y.data(), kRows);
      std::vector<float> row(cols);
      for (int64_t r = 0; r < kRows; ++r) {
        DequantizeRow(weight.view(), r, row.data());
        for (int64_t t = 0; t < kTokens; ++t) {
          double sum = 0, magnitude = 0;
          for (int64_t c = 0; c < cols; ++c) {
            const double product = static_cast<double>(row[c]) *
                                   x.view(t).values[c] *
                                   x.view(t).scales[c / kGroupColumns];
            sum += product;
            magnitude += std::abs(product);
          }
          // In each weight, each group's scale, and each group's sum.
          const double roundings = static_cast<double>(NumGroups(cols)) + 3;
          EXPECT_TRUE(Near(y[t * kRows + r], sum,
                           roundings * kFloatEpsilon * magnitude))
              << "cols " << cols;
        }
      }
    }
  }
}

TEST_P(QuantizedTest, QuantizeRowHasTheBitsOfTheReference) {
  for (const Values values : kAllValues) {
    for (int64_t cols = 0; cols <= 200; ++cols) {
      const std::vector<float> x = RandomFloats(cols, /*seed=*/cols, values);
      Activations actual(kernels(), x, 1, cols);
      Activations expected(reference(), x, 1, cols);
      EXPECT_TRUE(actual.SameAs(expected)) << "cols " << cols;
      EXPECT_TRUE(actual.GuardsIntact());
    }
  }
}

// Groups of one magnitude each, over all of them: subnormal, around the limit
// below which a group counts as zeros, and near infinity.
TEST_P(QuantizedTest, QuantizeRowOfEveryMagnitude) {
  for (int exponent = -149; exponent <= 127; ++exponent) {
    std::vector<float> x = RandomFloats(2 * kGroupColumns, /*seed=*/1);
    for (float& value : x) {
      value = std::ldexp(std::clamp(value, -1.99f, 1.99f), exponent);
    }
    // The limit itself, and halves that round to even.
    x[40] = std::ldexp(1.0f, exponent);
    Activations actual(kernels(), x, 1, 2 * kGroupColumns);
    Activations expected(reference(), x, 1, 2 * kGroupColumns);
    EXPECT_TRUE(actual.SameAs(expected)) << "2^" << exponent;
  }
}

TEST_P(QuantizedTest, QuantizeRowTakesTinyGroupsForZeros) {
  for (const float largest : {0x1p-100f, -0x1p-100f}) {
    std::vector<float> x(2 * kGroupColumns, 0x1p-120f);
    x[5] = largest;
    x[40] = std::nextafter(largest, 0.0f);
    Activations q(kernels(), x, 1, 2 * kGroupColumns);
    EXPECT_EQ(q.scales()[0], 0x1p-100f / 127.0f);
    EXPECT_EQ(q.values()[5], largest > 0 ? 127 : -127);
    EXPECT_EQ(q.scales()[1], 0.0f);
    EXPECT_EQ(q.values()[40], 0);
  }
}

TEST_P(QuantizedTest, QuantizeRowIsWhatItSays) {
  constexpr int64_t kCols = 40;
  std::vector<float> x(kCols, 0.0f);
  x[0] = -254.0f;  // one step is 2
  x[1] = 5.0f;     // 2.5 steps: to even
  x[2] = 7.0f;     // 3.5
  x[3] = -3.0f;    // -1.5
  x[31] = 253.0f;  // 126.5
  x[39] = 0x1p-101f;
  Activations q(kernels(), x, 1, kCols);
  EXPECT_EQ(q.scales()[0], 2.0f);
  EXPECT_EQ(q.scales()[1], 0.0f);
  std::vector<int> values(q.values(), q.values() + PaddedColumns(kCols));
  std::vector<int> expected(PaddedColumns(kCols), 0);
  expected[0] = -127;
  expected[1] = 2;
  expected[2] = 4;
  expected[3] = -2;
  expected[31] = 126;
  EXPECT_EQ(values, expected);
  EXPECT_EQ(q.sums()[0], -127 + 2 + 4 - 2 + 126);
  EXPECT_EQ(q.sums()[1], 0);
}

TEST_P(QuantizedTest, QuantizeRowErrsByHalfAStep) {
  constexpr int64_t kCols = 2048;
  const std::vector<float> x = RandomFloats(kCols, /*seed=*/15);
  Activations q(kernels(), x, 1, kCols);
  for (int64_t c = 0; c < kCols; ++c) {
    const double scale = q.scales()[c / kGroupColumns];
    EXPECT_TRUE(Near(x[c], q.values()[c] * scale, 0.50001 * scale));
    EXPECT_LE(std::abs(q.values()[c]), 127);
  }
}

// One block by both tables on guarded memory; whether the reference took it.
bool CompareBlock(const KernelTable& kernels, const KernelTable& reference,
                  DType dtype, const std::vector<float>& x) {
  auto guarded = Guarded(x);
  GuardedBuffer actual(static_cast<size_t>(BlockBytes(dtype)));
  std::vector<uint8_t> expected(static_cast<size_t>(BlockBytes(dtype)));
  const bool taken = reference.quantize_block(dtype, x.data(), expected.data());
  EXPECT_EQ(kernels.quantize_block(dtype, guarded->floats(),
                                   static_cast<uint8_t*>(actual.data())),
            taken);
  EXPECT_TRUE(actual.GuardsIntact());
  if (taken) {
    EXPECT_EQ(std::memcmp(actual.data(), expected.data(), expected.size()), 0);
  }
  return taken;
}

constexpr int64_t kBlockWeights = kPanelRows * kBlockColumns;

TEST_P(QuantizedTest, QuantizeBlockHasTheBitsOfTheReference) {
  for (const DType dtype : kFormats) {
    for (uint32_t seed = 1; seed <= 300; ++seed) {
      SCOPED_TRACE(seed);
      EXPECT_TRUE(CompareBlock(kernels(), reference(), dtype,
                               RandomFloats(kBlockWeights, seed)));
      CompareBlock(kernels(), reference(), dtype,
                   RandomFloats(kBlockWeights, seed, Values::kExtreme));
    }
  }
}

// From groups that count as zeros over scales that are subnormal in f16 to
// those beyond it.
TEST_P(QuantizedTest, QuantizeBlockOfEveryMagnitude) {
  for (const DType dtype : kFormats) {
    int taken = 0;
    for (int exponent = -149; exponent <= 126; ++exponent) {
      SCOPED_TRACE(exponent);
      std::vector<float> x = RandomFloats(kBlockWeights, /*seed=*/1);
      for (float& value : x) {
        value = std::ldexp(std::clamp(value, -1.99f, 1.99f), exponent);
      }
      taken += CompareBlock(kernels(), reference(), dtype, x) ? 1 : 0;
    }
    EXPECT_GT(taken, 160);
    EXPECT_LT(taken, 180);
  }
}

TEST_P(QuantizedTest, QuantizeBlockOfFewValues) {
  std::mt19937 rng(16);
  for (const DType dtype : kFormats) {
    for (int i = 0; i < 200; ++i) {
      // Zeros of both signs, and extremes of both signs that are equal.
      std::vector<float> x(kBlockWeights);
      constexpr float kFew[] = {0.0f, -0.0f, 0.5f, -0.5f, 0.25f, 0x1p-110f};
      for (float& value : x) value = kFew[rng() % std::size(kFew)];
      EXPECT_TRUE(CompareBlock(kernels(), reference(), dtype, x));
    }
    EXPECT_TRUE(CompareBlock(kernels(), reference(), dtype,
                             std::vector<float>(kBlockWeights, 0.0f)));
  }
}

TEST_P(QuantizedTest, QuantizeBlockRefusesWhatIsNotFiniteAnywhere) {
  for (const DType dtype : kFormats) {
    for (int64_t i = 0; i < kBlockWeights; i += 7) {
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                              -std::numeric_limits<float>::infinity(), 1e7f}) {
        std::vector<float> x = RandomFloats(kBlockWeights, /*seed=*/17);
        x[i] = bad;
        EXPECT_FALSE(CompareBlock(kernels(), reference(), dtype, x)) << bad;
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
