#include "kernels/weight_codec.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/half.h"

namespace switchyard::kernels {
namespace {

// A matrix [rows, cols] of normal numbers, quantised, and what it says.
struct Encoded {
  Encoded(DType dtype, int64_t rows, int64_t cols) : original(rows * cols) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    for (float& w : original) w = normal(random);
    bytes.resize(WeightBytes(dtype, rows, cols));
    for (int64_t r = 0; r < rows; r += kPanelRows) {
      EXPECT_TRUE(QuantizePanel(
          dtype, original.data() + r * cols, std::min(kPanelRows, rows - r),
          cols, bytes.data() + r / kPanelRows * PanelBytes(dtype, cols)));
    }
    view = {bytes.data(), dtype, rows, cols};
    for (int64_t r = 0; r < rows; ++r) {
      decoded.resize((r + 1) * cols);
      DequantizeRow(view, r, decoded.data() + r * cols);
    }
  }

  double RelativeError() const {
    double error = 0, norm = 0;
    for (size_t i = 0; i < original.size(); ++i) {
      error += std::pow(original[i] - decoded[i], 2);
      norm += std::pow(original[i], 2);
    }
    return std::sqrt(error / norm);
  }

  std::vector<float> original;
  std::vector<uint8_t> bytes;
  WeightView view;
  std::vector<float> decoded;
};

TEST(Half, RoundTripsEveryNumber) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = FloatOfHalf(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(FloatOfHalf(HalfOfFloat(value))));
    } else {
      ASSERT_EQ(HalfOfFloat(value), bits) << value;
    }
  }
}

TEST(Half, RoundsToTheNearestAndTiesToEven) {
  EXPECT_EQ(FloatOfHalf(HalfOfFloat(2049.0f)), 2048.0f);
  EXPECT_EQ(FloatOfHalf(HalfOfFloat(2051.0f)), 2052.0f);
  EXPECT_EQ(FloatOfHalf(HalfOfFloat(1e-30f)), 0.0f);
  EXPECT_EQ(HalfOfFloat(0x1p-25f), 0);  // a tie between 0 and 2^-24
  EXPECT_EQ(HalfOfFloat(0x1.8p-24f), 2);
  EXPECT_EQ(FloatOfHalf(HalfOfFloat(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(FloatOfHalf(HalfOfFloat(65520.0f))));
}

// Of normal numbers in groups of 32: the figures of 8 and 4 bits, and of a
// plain rounding to four bits with the extreme at -8, which a search must beat.
TEST(WeightCodec, ErrorIsThatOfTheFormat) {
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>(16, 64), {33, 100}, {5, 2048}, {64, 512}}) {
    EXPECT_LT(Encoded(DType::kQ8, rows, cols).RelativeError(), 0.0058);
    EXPECT_LT(Encoded(DType::kQ4, rows, cols).RelativeError(), 0.086);
  }
}

TEST(WeightCodec, ZeroesWhatAMatrixLacksToAPanel) {
  const Encoded e(DType::kQ8, 3, 40);
  const WeightView whole = {e.bytes.data(), DType::kQ8, kPanelRows,
                            kBlockColumns};
  std::vector<float> row(kBlockColumns);
  DequantizeRow(whole, 2, row.data());
  EXPECT_THAT(std::vector<float>(row.begin() + 40, row.end()),
              testing::Each(0.0f));
  DequantizeRow(whole, 3, row.data());
  EXPECT_THAT(row, testing::Each(0.0f));
}

TEST(WeightCodec, UnpacksWhatItDequantizes) {
  for (const DType dtype : {DType::kQ8, DType::kQ4}) {
    constexpr int64_t kRows = 19, kCols = 100;
    const Encoded e(dtype, kRows, kCols);
    for (int64_t r = 0; r < kRows; ++r) {
      std::vector<int8_t> q(PaddedColumns(kCols));
      std::vector<float> scales(NumGroups(kCols));
      UnpackRow(e.view, r, q.data(), scales.data());
      for (int64_t c = 0; c < PaddedColumns(kCols); ++c) {
        const float value = q[c] * scales[c / kGroupColumns];
        EXPECT_EQ(value, c < kCols ? e.decoded[r * kCols + c] : 0.0f);
      }
    }
  }
}

TEST(WeightCodec, KeepsGroupsOfZerosAndOfOneValue) {
  std::vector<float> weights(kBlockColumns, 0.0f);
  weights[40] = -3.0f;
  for (const DType dtype : {DType::kQ8, DType::kQ4}) {
    std::vector<uint8_t> panel(PanelBytes(dtype, kBlockColumns));
    ASSERT_TRUE(
        QuantizePanel(dtype, weights.data(), 1, kBlockColumns, panel.data()));
    std::vector<float> row(kBlockColumns);
    DequantizeRow({panel.data(), dtype, 1, kBlockColumns}, 0, row.data());
    for (int64_t c = 0; c < kBlockColumns; ++c) {
      EXPECT_NEAR(row[c], weights[c], 2e-3) << c;
    }
  }
}

TEST(WeightCodec, RefusesWhatIsNotFiniteOrTooLarge) {
  for (const DType dtype : {DType::kQ8, DType::kQ4}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(), 1e7f}) {
      std::vector<float> weights(kBlockColumns, 1.0f);
      weights[63] = bad;
      std::vector<uint8_t> panel(PanelBytes(dtype, kBlockColumns));
      EXPECT_FALSE(
          QuantizePanel(dtype, weights.data(), 1, kBlockColumns, panel.data()))
          << bad;
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
