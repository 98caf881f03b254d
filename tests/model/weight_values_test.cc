#include "model/weight_values.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/checkpoint_writer.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using testing::MakeTensor;

// What a half-precision pattern means, from its definition.
double F16Value(uint32_t bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10 & 0x1F);
  const double fraction = bits & 0x3FF;
  if (exponent == 31) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  return exponent == 0 ? sign * std::ldexp(fraction, -24)
                       : sign * std::ldexp(1024 + fraction, exponent - 25);
}

// Every pattern of both 16-bit types.
TEST(WidenWeights, All16BitPatterns) {
  std::vector<uint16_t> patterns(1 << 16);
  for (uint32_t i = 0; i < patterns.size(); ++i) patterns[i] = i;
  std::vector<float> values(patterns.size());
  WidenWeights({patterns.data(), DType::kF16, 256, 256}, values.data());
  for (uint32_t i = 0; i < patterns.size(); ++i) {
    const double expected = F16Value(i);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(values[i])) << i;
    } else {
      ASSERT_EQ(values[i], expected) << i;
      ASSERT_EQ(std::signbit(values[i]), (i & 0x8000) != 0) << i;
    }
  }
  WidenWeights({patterns.data(), DType::kBF16, 256, 256}, values.data());
  for (uint32_t i = 0; i < patterns.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), i << 16);
  }
}

TEST(WidenWeights, UnalignedFloats) {
  const std::vector<float> expected = {1.5f, -2.25f, 3e30f};
  std::string bytes(2 + 12, '\0');
  std::memcpy(bytes.data() + 2, expected.data(), 12);
  std::vector<float> values(3);
  WidenWeights({bytes.data() + 2, DType::kF32, 1, 3}, values.data());
  EXPECT_EQ(values, expected);
}

TEST(CountNonFinite, CountsInfinitiesAndNaNs) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    std::vector<float> values(1001, 3.0f);
    const auto count = [&] {
      const auto tensor = MakeTensor("w", {7, 143}, values, dtype);
      return CountNonFinite({tensor.bytes.data(), dtype, 7, 143});
    };
    // The greatest finite values of each type count as finite.
    values[5] = dtype == DType::kF16 ? 65504.0f : 3e38f;
    values[6] = 0;
    values[7] = 1e-42f;  // subnormal
    EXPECT_EQ(count(), 0);
    values[0] = kInfinity;
    values[500] = nan;
    values[1000] = -kInfinity;
    EXPECT_EQ(count(), 3);
  }
}

// The tests' own rounding, which their fixtures rest on: to nearest, ties to
// even.
TEST(CheckpointWriter, RoundsToNearestEven) {
  std::vector<uint16_t> patterns;
  for (uint32_t i = 0; i < 0x7C00; ++i) patterns.push_back(i);
  std::vector<float> exact(patterns.size());
  WidenWeights(
      {patterns.data(), DType::kF16, 1, static_cast<int64_t>(exact.size())},
      exact.data());
  std::vector<float> middles;
  for (size_t i = 0; i + 1 < exact.size(); ++i) {
    middles.push_back((exact[i] + exact[i + 1]) / 2);
  }
  const auto bits_of = [](const testing::NamedTensor& tensor, size_t i) {
    uint16_t bits;
    std::memcpy(&bits, tensor.bytes.data() + 2 * i, 2);
    return bits;
  };
  const auto of_exact =
      MakeTensor("w", {static_cast<int64_t>(exact.size())}, exact, DType::kF16);
  const auto of_middles = MakeTensor(
      "w", {static_cast<int64_t>(middles.size())}, middles, DType::kF16);
  for (size_t i = 0; i < middles.size(); ++i) {
    ASSERT_EQ(bits_of(of_exact, i), patterns[i]);
    ASSERT_EQ(bits_of(of_middles, i), patterns[i] + patterns[i] % 2);
  }
  // bf16: 1 + 2^-8 is half-way from 1 to the next, 1 + 2^-7.
  const auto bf16 = MakeTensor(
      "w", {4},
      {1 + 0x1p-8f, 1 + 0x1p-7f + 0x1p-8f, 1 + 0x1.8p-8f, -1 - 0x1p-9f},
      DType::kBF16);
  EXPECT_EQ(testing::TensorValues(bf16),
            (std::vector<float>{1, 1 + 0x1p-6f, 1 + 0x1p-7f, -1}));
}

}  // namespace
}  // namespace switchyard::model
