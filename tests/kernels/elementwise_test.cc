// Norms, gates, softmax's exponentials and RoPE.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/kernel_table.h"
#include "tests/kernels/guarded_buffer.h"
#include "tests/kernels/kernel_testing.h"

namespace switchyard::kernels {
namespace {

using ElementwiseTest = KernelsTest;
SWITCHYARD_FOR_ALL_KERNELS(ElementwiseTest);

double SigmoidOf(double x) { return 1 / (1 + std::exp(-x)); }

TEST_P(ElementwiseTest, RmsNorm) {
  for (const Values values : kAllValues) {
    for (const float offset : {0.0f, 1.0f}) {
      for (const int64_t n : kLengths) {
        SCOPED_TRACE(n);
        auto x = Guarded(RandomFloats(n, /*seed=*/1, values));
        auto w = Guarded(RandomFloats(n, /*seed=*/2, values));
        GuardedBuffer actual(n * sizeof(float));
        GuardedBuffer expected(n * sizeof(float));
        kernels().rms_norm(x->floats(), w->floats(), offset, 1e-6f, n,
                           actual.floats());
        reference().rms_norm(x->floats(), w->floats(), offset, 1e-6f, n,
                             expected.floats());
        EXPECT_TRUE(SameBits(actual.floats(), expected.floats(), n));
        EXPECT_TRUE(actual.GuardsIntact());
        if (values == Values::kOrdinary) {
          double squares = 0;
          for (int64_t i = 0; i < n; ++i) {
            squares += static_cast<double>(x->floats()[i]) * x->floats()[i];
          }
          const double root =
              std::sqrt(squares / static_cast<double>(n) + 1e-6);
          for (int64_t i = 0; i < n; ++i) {
            const double weight = static_cast<double>(offset) + w->floats()[i];
            const double exact = x->floats()[i] / root * weight;
            // n / 16 + 4 roundings of the sum, halved by the root, and a few;
            // offset + w loses bits where it cancels.
            const double relative =
                (static_cast<double>(n) / 32 + 8) * kFloatEpsilon;
            EXPECT_TRUE(
                Near(actual.floats()[i], exact,
                     relative * std::abs(exact) +
                         kFloatEpsilon * std::abs(x->floats()[i] / root)));
          }
        }
        kernels().rms_norm(x->floats(), w->floats(), offset, 1e-6f, n,
                           x->floats());
        EXPECT_TRUE(SameBits(x->floats(), expected.floats(), n)) << "in place";
      }
    }
  }
}

TEST_P(ElementwiseTest, L2Norm) {
  constexpr float kScale = 0.08838834764f;  // 1 / sqrt(128), as for q
  for (const Values values : kAllValues) {
    for (const int64_t n : kLengths) {
      SCOPED_TRACE(n);
      auto x = Guarded(RandomFloats(n, /*seed=*/1, values));
      GuardedBuffer actual(n * sizeof(float));
      GuardedBuffer expected(n * sizeof(float));
      kernels().l2_norm(x->floats(), 1e-6f, kScale, n, actual.floats());
      reference().l2_norm(x->floats(), 1e-6f, kScale, n, expected.floats());
      EXPECT_TRUE(SameBits(actual.floats(), expected.floats(), n));
      EXPECT_TRUE(actual.GuardsIntact());
      if (values == Values::kOrdinary) {
        double squares = 0;
        for (int64_t i = 0; i < n; ++i) {
          squares += static_cast<double>(x->floats()[i]) * x->floats()[i];
        }
        for (int64_t i = 0; i < n; ++i) {
          const double exact =
              x->floats()[i] / std::sqrt(squares + 1e-6) * kScale;
          EXPECT_TRUE(Near(actual.floats()[i], exact,
                           (static_cast<double>(n) / 32 + 8) * kFloatEpsilon *
                               std::abs(exact)));
        }
      }
      kernels().l2_norm(x->floats(), 1e-6f, kScale, n, x->floats());
      EXPECT_TRUE(SameBits(x->floats(), expected.floats(), n)) << "in place";
    }
  }
}

TEST_P(ElementwiseTest, SiluMul) {
  for (const Values values : kAllValues) {
    for (const int64_t n : kLengths) {
      SCOPED_TRACE(n);
      auto gate = Guarded(RandomFloats(n, /*seed=*/1, values));
      auto up = Guarded(RandomFloats(n, /*seed=*/2, values));
      GuardedBuffer actual(n * sizeof(float));
      GuardedBuffer expected(n * sizeof(float));
      kernels().silu_mul(gate->floats(), up->floats(), n, actual.floats());
      reference().silu_mul(gate->floats(), up->floats(), n, expected.floats());
      EXPECT_TRUE(SameBits(actual.floats(), expected.floats(), n));
      EXPECT_TRUE(actual.GuardsIntact());
      if (values == Values::kOrdinary) {
        for (int64_t i = 0; i < n; ++i) {
          const double g = gate->floats()[i];
          const double exact = g * SigmoidOf(g) * up->floats()[i];
          EXPECT_TRUE(Near(actual.floats()[i], exact,
                           6 * kFloatEpsilon * std::abs(exact)));
        }
      }
      auto in_place =
          Guarded(std::vector<float>(gate->floats(), gate->floats() + n));
      kernels().silu_mul(in_place->floats(), up->floats(), n,
                         in_place->floats());
      EXPECT_TRUE(SameBits(in_place->floats(), expected.floats(), n));
      kernels().silu_mul(gate->floats(), up->floats(), n, up->floats());
      EXPECT_TRUE(SameBits(up->floats(), expected.floats(), n));
    }
  }
}

TEST_P(ElementwiseTest, SigmoidMul) {
  for (const Values values : kAllValues) {
    for (const int64_t n : kLengths) {
      SCOPED_TRACE(n);
      auto x = Guarded(RandomFloats(n, /*seed=*/1, values));
      auto gate = Guarded(RandomFloats(n, /*seed=*/2, values));
      GuardedBuffer actual(n * sizeof(float));
      GuardedBuffer expected(n * sizeof(float));
      kernels().sigmoid_mul(x->floats(), gate->floats(), n, actual.floats());
      reference().sigmoid_mul(x->floats(), gate->floats(), n,
                              expected.floats());
      EXPECT_TRUE(SameBits(actual.floats(), expected.floats(), n));
      EXPECT_TRUE(actual.GuardsIntact());
      if (values == Values::kOrdinary) {
        for (int64_t i = 0; i < n; ++i) {
          const double exact = x->floats()[i] * SigmoidOf(gate->floats()[i]);
          EXPECT_TRUE(Near(actual.floats()[i], exact,
                           6 * kFloatEpsilon * std::abs(exact)));
        }
      }
      kernels().sigmoid_mul(x->floats(), gate->floats(), n, x->floats());
      EXPECT_TRUE(SameBits(x->floats(), expected.floats(), n)) << "in place";
    }
  }
}

TEST_P(ElementwiseTest, ExpSubMax) {
  for (const Values values : kAllValues) {
    for (const int64_t n : kLengths) {
      if (n == 0) continue;  // the contract says n >= 1
      SCOPED_TRACE(n);
      const std::vector<float> x = RandomFloats(n, /*seed=*/1, values);
      auto actual = Guarded(x);
      auto expected = Guarded(x);
      float sum, expected_sum;
      const float greatest = kernels().exp_sub_max(actual->floats(), n, &sum);
      // Which zero it is, is not promised.
      EXPECT_EQ(greatest,
                reference().exp_sub_max(expected->floats(), n, &expected_sum));
      EXPECT_TRUE(SameBits(sum, expected_sum));
      EXPECT_TRUE(SameBits(actual->floats(), expected->floats(), n));
      EXPECT_TRUE(actual->GuardsIntact());
      if (values == Values::kOrdinary) {
        double max = x[0], exact_sum = 0;
        for (const float value : x) max = value > max ? value : max;
        EXPECT_EQ(greatest, max);
        for (int64_t i = 0; i < n; ++i) {
          // x - max is rounded before the exponential.
          const double exact = std::exp(x[i] - max);
          EXPECT_TRUE(Near(actual->floats()[i], exact,
                           (2 + (max - x[i])) * kFloatEpsilon * exact));
          exact_sum += exact;
        }
        EXPECT_TRUE(Near(
            sum, exact_sum,
            (static_cast<double>(n) / 16 + 16) * kFloatEpsilon * exact_sum));
      }
    }
  }
}

// Softmax must not be thrown by where a row's greatest score lies, nor by large
// scores.
TEST_P(ElementwiseTest, ExpSubMaxFindsTheMaximumAnywhere) {
  for (int64_t n = 1; n <= 40; ++n) {
    for (int64_t where = 0; where < n; ++where) {
      std::vector<float> x(n, -1e6f);
      x[where] = 1e6f;
      float sum;
      EXPECT_EQ(kernels().exp_sub_max(x.data(), n, &sum), 1e6f);
      EXPECT_EQ(sum, 1.0f);
      for (int64_t i = 0; i < n; ++i) EXPECT_EQ(x[i], i == where ? 1.0f : 0.0f);
    }
  }
}

TEST_P(ElementwiseTest, ExpSubMaxShowsNaN) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  for (int64_t n = 2; n <= 40; ++n) {
    for (int64_t where = 0; where < n; ++where) {
      std::vector<float> x(n, 3.0f);
      x[where] = kNaN;
      float sum;
      EXPECT_EQ(kernels().exp_sub_max(x.data(), n, &sum), 3.0f);
      EXPECT_TRUE(std::isnan(sum));
      for (int64_t i = 0; i < n; ++i) {
        EXPECT_TRUE(SameBits(x[i], i == where ? kNaN : 1.0f));
      }
    }
  }
}

TEST_P(ElementwiseTest, SoftmaxWeights) {
  for (const float inverse_temperature : {100.0f, 1.43f, 1.0f, 0.03f}) {
    for (const int64_t n : kLengths) {
      std::vector<float> x = RandomFloats(n, /*seed=*/1);
      float max = 0;
      for (const float value : x) max = std::max(max, value);
      std::vector<float> actual(n), expected(n);
      const double sum = kernels().softmax_weights(
          x.data(), max, inverse_temperature, n, actual.data());
      EXPECT_EQ(sum,
                reference().softmax_weights(x.data(), max, inverse_temperature,
                                            n, expected.data()));
      EXPECT_EQ(actual, expected);
      double exact_sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        const double exponent =
            static_cast<double>((x[i] - max) * inverse_temperature);
        const double exact = exponent < -87 ? 0 : std::exp(exponent);
        EXPECT_NEAR(actual[i], exact, exact * 2.4e-7) << exponent;
        exact_sum += exact;
      }
      EXPECT_NEAR(sum, exact_sum, exact_sum * 2.4e-7);
    }
  }
}

TEST_P(ElementwiseTest, SoftmaxWeightsAreExponentials) {
  std::vector<float> x;
  for (float value = -87; value <= 0; value += 0x1p-8f) x.push_back(value);
  std::vector<float> weights(x.size());
  kernels().softmax_weights(x.data(), 0, 1, static_cast<int64_t>(x.size()),
                            weights.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    EXPECT_NEAR(weights[i], exact, exact * 2.4e-7) << x[i];
  }
}

TEST_P(ElementwiseTest, SoftmaxWeightsEdges) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float x[] = {0.0f,
                     -0.0f,
                     -87.0f,
                     -87.1f,
                     -1e30f,
                     -kInfinity,
                     std::numeric_limits<float>::quiet_NaN(),
                     -1.0f,
                     -2.0f};
  float weights[9];
  const double sum = kernels().softmax_weights(x, 0.0f, 1.0f, 9, weights);
  EXPECT_EQ(weights[0], 1.0f);
  EXPECT_EQ(weights[1], 1.0f);
  EXPECT_GT(weights[2], 0.0f);
  for (int i = 3; i < 7; ++i) EXPECT_EQ(weights[i], 0.0f) << i;
  EXPECT_NEAR(weights[7], std::exp(-1.0), 1e-7);
  EXPECT_NEAR(sum, 2 + std::exp(-1.0) + std::exp(-2.0), 1e-6);
}

TEST_P(ElementwiseTest, Rope) {
  for (const Values values : kAllValues) {
    for (const int64_t n : kLengths) {
      SCOPED_TRACE(n);
      const std::vector<float> x = RandomFloats(2 * n, /*seed=*/1, values);
      const std::vector<float> angles = RandomFloats(n, /*seed=*/2);
      std::vector<float> cosines, sines;
      for (const float angle : angles) {
        cosines.push_back(std::cos(angle));
        sines.push_back(std::sin(angle));
      }
      auto cos = Guarded(cosines);
      auto sin = Guarded(sines);
      auto actual = Guarded(x);
      auto expected = Guarded(x);
      kernels().rope(actual->floats(), cos->floats(), sin->floats(), n);
      reference().rope(expected->floats(), cos->floats(), sin->floats(), n);
      EXPECT_TRUE(SameBits(actual->floats(), expected->floats(), 2 * n));
      EXPECT_TRUE(actual->GuardsIntact());
      if (values != Values::kOrdinary) continue;
      for (int64_t i = 0; i < n; ++i) {
        const double c = cosines[i], s = sines[i];
        const double size = std::abs(x[i]) + std::abs(x[i + n]);
        EXPECT_TRUE(Near(actual->floats()[i], x[i] * c - x[i + n] * s,
                         2 * kFloatEpsilon * size));
        EXPECT_TRUE(Near(actual->floats()[i + n], x[i + n] * c + x[i] * s,
                         2 * kFloatEpsilon * size));
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
