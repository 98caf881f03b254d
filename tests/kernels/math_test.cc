// Exp and its relatives: accuracy against double, special values, and the
// vector bodies' copies of them.

#include "kernels/math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/kernel_table.h"
#include "tests/kernels/kernel_testing.h"

namespace switchyard::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// The distance of two floats near `exact`; of subnormals below the normal
// floats.
double UnitInTheLastPlace(double exact) {
  const double size = std::abs(exact);
  if (size < 0x1p-126) return 0x1p-149;
  int exponent = 0;
  std::frexp(size, &exponent);  // size in [2^(exponent - 1), 2^exponent)
  return std::ldexp(1.0, exponent - 24);
}

// Floats of every size and sign, spread evenly over the bit patterns. A prime,
// so that the low bits vary.
constexpr uint32_t kBitStep = 1009;

std::vector<float> SampleOfFloats(float low, float high) {
  std::vector<float> sample = {low, high};
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += kBitStep) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (low <= x && x <= high) sample.push_back(x);
  }
  return sample;
}

template <typename Function, typename Exact>
void ExpectWithin(double ulps, float low, float high, Function function,
                  Exact exact) {
  double worst = 0;
  float worst_at = 0;
  for (const float x : SampleOfFloats(low, high)) {
    const double expected = exact(static_cast<double>(x));
    const double error =
        std::abs(function(x) - expected) / UnitInTheLastPlace(expected);
    if (!(error <= worst)) {  // so that NaN counts
      worst = error;
      worst_at = x;
    }
  }
  EXPECT_LE(worst, ulps) << "at " << worst_at;
  EXPECT_GT(worst, 0.3) << "a sample that finds no error shows nothing";
}

TEST(MathTest, ExpIsAccurate) {
  // Where e^x is a float at all, the subnormals included.
  ExpectWithin(1.01, -103.97f, 88.72283f, Exp,
               [](double x) { return std::exp(x); });
}

TEST(MathTest, SigmoidIsAccurate) {
  ExpectWithin(2.5, -87.0f, 1e38f, Sigmoid,
               [](double x) { return 1 / (1 + std::exp(-x)); });
}

TEST(MathTest, SiluIsAccurate) {
  ExpectWithin(2.5, -83.0f, 1e38f, Silu,
               [](double x) { return x / (1 + std::exp(-x)); });
}

TEST(MathTest, LogIsAccurate) {
  ExpectWithin(0.51, std::numeric_limits<float>::denorm_min(),
               std::numeric_limits<float>::max(), Log,
               [](double x) { return std::log(x); });
}

TEST(MathTest, SoftplusIsAccurate) {
  ExpectWithin(1.5, -103.0f, 20.0f, Softplus,
               [](double x) { return std::log1p(std::exp(x)); });
}

TEST(MathTest, ExpAtTheEdges) {
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-0.0f), 1.0f);
  EXPECT_EQ(Exp(std::numeric_limits<float>::denorm_min()), 1.0f);
  EXPECT_EQ(Exp(kInfinity), kInfinity);
  EXPECT_EQ(Exp(std::numeric_limits<float>::max()), kInfinity);
  EXPECT_TRUE(std::isfinite(Exp(88.72283f)));
  EXPECT_EQ(Exp(88.72284f), kInfinity);
  EXPECT_TRUE(SameBits(Exp(-kInfinity), 0.0f));
  EXPECT_TRUE(SameBits(Exp(-std::numeric_limits<float>::max()), 0.0f));
  EXPECT_TRUE(SameBits(Exp(-104.0f), 0.0f));
  EXPECT_EQ(Exp(-103.9f), std::numeric_limits<float>::denorm_min());
  EXPECT_TRUE(std::isnan(Exp(kNaN)));
  EXPECT_TRUE(std::isnan(Exp(-kNaN)));
}

TEST(MathTest, SigmoidAtTheEdges) {
  EXPECT_EQ(Sigmoid(0.0f), 0.5f);
  EXPECT_EQ(Sigmoid(kInfinity), 1.0f);
  EXPECT_EQ(Sigmoid(100.0f), 1.0f);
  EXPECT_TRUE(SameBits(Sigmoid(-kInfinity), 0.0f));
  EXPECT_TRUE(SameBits(Sigmoid(-100.0f), 0.0f));
  EXPECT_GT(Sigmoid(-88.0f), 0.0f);
  EXPECT_TRUE(std::isnan(Sigmoid(kNaN)));
}

TEST(MathTest, SiluAtTheEdges) {
  EXPECT_TRUE(SameBits(Silu(0.0f), 0.0f));
  EXPECT_TRUE(SameBits(Silu(-0.0f), -0.0f));
  EXPECT_EQ(Silu(kInfinity), kInfinity);
  EXPECT_EQ(Silu(1e30f), 1e30f);
  EXPECT_TRUE(SameBits(Silu(-1e30f), -0.0f));
  EXPECT_TRUE(std::isnan(Silu(-kInfinity)));
  EXPECT_TRUE(std::isnan(Silu(kNaN)));
}

TEST(MathTest, LogAtTheEdges) {
  EXPECT_TRUE(SameBits(Log(1.0f), 0.0f));
  EXPECT_EQ(Log(0.0f), -kInfinity);
  EXPECT_EQ(Log(-0.0f), -kInfinity);
  EXPECT_EQ(Log(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(Log(-1.0f)));
  EXPECT_TRUE(std::isnan(Log(-kInfinity)));
  EXPECT_TRUE(std::isnan(Log(kNaN)));
}

TEST(MathTest, SoftplusAtTheEdges) {
  EXPECT_EQ(Softplus(20.5f), 20.5f);
  EXPECT_EQ(Softplus(kInfinity), kInfinity);
  EXPECT_TRUE(SameBits(Softplus(-kInfinity), 0.0f));
  EXPECT_TRUE(std::isnan(Softplus(kNaN)));
}

using VectorMathTest = KernelsTest;
SWITCHYARD_FOR_ALL_KERNELS(VectorMathTest);

// Sample in 16 lanes at a time, and odd counts at the end.
TEST_P(VectorMathTest, SigmoidAndSiluAreThoseOfMathH) {
  std::vector<float> x = SampleOfFloats(-kInfinity, kInfinity);
  x.push_back(kNaN);
  const std::vector<float> ones(x.size(), 1.0f);
  std::vector<float> y(x.size());
  const auto n = static_cast<int64_t>(x.size());

  kernels().sigmoid_mul(ones.data(), x.data(), n, y.data());
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_TRUE(SameBits(y[i], Sigmoid(x[i]))) << "sigmoid(" << x[i] << ")";
  }
  kernels().silu_mul(x.data(), ones.data(), n, y.data());
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_TRUE(SameBits(y[i], Silu(x[i]))) << "silu(" << x[i] << ")";
  }
}

TEST_P(VectorMathTest, ExpIsThatOfMathH) {
  // The greatest is 0, so what is left of exp_sub_max is Exp.
  std::vector<float> x = SampleOfFloats(-kInfinity, 0.0f);
  std::vector<float> y = x;
  const auto n = static_cast<int64_t>(x.size());
  float sum;
  kernels().exp_sub_max(y.data(), n, &sum);
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_TRUE(SameBits(y[i], Exp(x[i]))) << "exp(" << x[i] << ")";
  }
}

}  // namespace
}  // namespace switchyard::kernels
