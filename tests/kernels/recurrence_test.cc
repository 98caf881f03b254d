// The convolution and the delta rule of linear attention.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/kernel_table.h"
#include "tests/kernels/guarded_buffer.h"
#include "tests/kernels/kernel_testing.h"

namespace switchyard::kernels {
namespace {

using RecurrenceTest = KernelsTest;
SWITCHYARD_FOR_ALL_KERNELS(RecurrenceTest);

TEST_P(RecurrenceTest, ConvStepHasTheBitsOfTheReference) {
  for (const Values values : kAllValues) {
    for (const int64_t taps : {1, 2, 3, 4, 5}) {
      for (const int64_t channels : kLengths) {
        SCOPED_TRACE(channels);
        auto w = Guarded(RandomFloats(channels * taps, /*seed=*/1, values));
        auto x = Guarded(RandomFloats(channels, /*seed=*/2, values));
        const std::vector<float> tail =
            RandomFloats(channels * (taps - 1), /*seed=*/3, values);
        auto actual_tail = Guarded(tail);
        auto expected_tail = Guarded(tail);
        GuardedBuffer actual(channels * sizeof(float));
        GuardedBuffer expected(channels * sizeof(float));
        kernels().conv_step(w->floats(), taps, x->floats(),
                            actual_tail->floats(), channels, actual.floats());
        reference().conv_step(w->floats(), taps, x->floats(),
                              expected_tail->floats(), channels,
                              expected.floats());
        EXPECT_TRUE(SameBits(actual.floats(), expected.floats(), channels));
        EXPECT_TRUE(SameBits(actual_tail->floats(), expected_tail->floats(),
                             channels * (taps - 1)));
        EXPECT_TRUE(actual.GuardsIntact());
        EXPECT_TRUE(actual_tail->GuardsIntact());

        auto again_tail = Guarded(tail);
        kernels().conv_step(w->floats(), taps, x->floats(),
                            again_tail->floats(), channels, x->floats());
        EXPECT_TRUE(SameBits(x->floats(), expected.floats(), channels))
            << "in place";
        EXPECT_TRUE(SameBits(again_tail->floats(), expected_tail->floats(),
                             channels * (taps - 1)))
            << "in place";
      }
    }
  }
}

// Step by step over a sequence, against the convolution of the whole sequence.
TEST_P(RecurrenceTest, ConvStepsAreAConvolution) {
  constexpr int64_t kTaps = 4, kChannels = 37, kTokens = 9;
  const std::vector<float> w = RandomFloats(kChannels * kTaps, /*seed=*/1);
  const std::vector<float> x = RandomFloats(kTokens * kChannels, /*seed=*/2);
  std::vector<float> tail((kTaps - 1) * kChannels, 0.0f);
  std::vector<float> y(kChannels);
  for (int64_t t = 0; t < kTokens; ++t) {
    kernels().conv_step(w.data(), kTaps, x.data() + t * kChannels, tail.data(),
                        kChannels, y.data());
    for (int64_t c = 0; c < kChannels; ++c) {
      double sum = 0, size = 0;
      for (int64_t j = 0; j < kTaps; ++j) {
        const int64_t from = t - (kTaps - 1) + j;
        if (from < 0) continue;
        const double product =
            static_cast<double>(w[c * kTaps + j]) * x[from * kChannels + c];
        sum += product;
        size += std::abs(product);
      }
      // silu's slope is below 1.1.
      EXPECT_TRUE(
          Near(y[c], sum / (1 + std::exp(-sum)), 12 * kFloatEpsilon * size));
    }
  }
}

struct DeltaRuleCase {
  int64_t dk;
  int64_t columns;
};
constexpr DeltaRuleCase kDeltaRuleCases[] = {
    {0, 5},   {1, 1},    {2, 15},   {3, 16},    {5, 17},
    {16, 31}, {16, 32},  {16, 48},  {16, 63},   {16, 64},
    {16, 65}, {128, 16}, {128, 80}, {128, 128}, {7, 129}};

TEST_P(RecurrenceTest, DeltaRuleStepHasTheBitsOfTheReference) {
  for (const Values values : kAllValues) {
    for (const auto& [dk, columns] : kDeltaRuleCases) {
      SCOPED_TRACE(columns);
      const int64_t stride = columns + 3;
      auto q = Guarded(RandomFloats(dk, /*seed=*/1, values));
      auto k = Guarded(RandomFloats(dk, /*seed=*/2, values));
      auto v = Guarded(RandomFloats(columns, /*seed=*/3, values));
      const int64_t floats = dk == 0 ? 0 : dk * stride - 3;
      const std::vector<float> state = RandomFloats(floats, /*seed=*/4, values);
      auto actual_state = Guarded(state);
      auto expected_state = Guarded(state);
      GuardedBuffer actual(columns * sizeof(float));
      GuardedBuffer expected(columns * sizeof(float));
      kernels().delta_rule_step(q->floats(), k->floats(), v->floats(), 0.9f,
                                0.4f, dk, columns, stride,
                                actual_state->floats(), actual.floats());
      reference().delta_rule_step(q->floats(), k->floats(), v->floats(), 0.9f,
                                  0.4f, dk, columns, stride,
                                  expected_state->floats(), expected.floats());
      EXPECT_TRUE(SameBits(actual.floats(), expected.floats(), columns));
      // The gaps between the rows of the state, too.
      EXPECT_TRUE(
          SameBits(actual_state->floats(), expected_state->floats(), floats));
      EXPECT_TRUE(actual.GuardsIntact());
      EXPECT_TRUE(actual_state->GuardsIntact());

      auto again_state = Guarded(state);
      kernels().delta_rule_step(q->floats(), k->floats(), v->floats(), 0.9f,
                                0.4f, dk, columns, stride,
                                again_state->floats(), v->floats());
      EXPECT_TRUE(SameBits(v->floats(), expected.floats(), columns))
          << "out is v";
    }
  }
}

TEST_P(RecurrenceTest, DeltaRuleColumnsDoNotDependOnTheSplit) {
  constexpr int64_t kDk = 32, kColumns = 100;
  const std::vector<float> q = RandomFloats(kDk, /*seed=*/1);
  const std::vector<float> k = RandomFloats(kDk, /*seed=*/2);
  const std::vector<float> v = RandomFloats(kColumns, /*seed=*/3);
  const std::vector<float> state = RandomFloats(kDk * kColumns, /*seed=*/4);
  std::vector<float> together_state = state;
  std::vector<float> together(kColumns);
  kernels().delta_rule_step(q.data(), k.data(), v.data(), 0.8f, 0.3f, kDk,
                            kColumns, kColumns, together_state.data(),
                            together.data());
  for (const int64_t width : {1, 3, 16, 50}) {
    std::vector<float> split_state = state;
    std::vector<float> split(kColumns);
    for (int64_t j = 0; j < kColumns; j += width) {
      kernels().delta_rule_step(q.data(), k.data(), v.data() + j, 0.8f, 0.3f,
                                kDk, std::min(width, kColumns - j), kColumns,
                                split_state.data() + j, split.data() + j);
    }
    EXPECT_TRUE(SameBits(split.data(), together.data(), kColumns));
    EXPECT_TRUE(
        SameBits(split_state.data(), together_state.data(), kDk * kColumns));
  }
}

// Many steps against the recurrence in double.
TEST_P(RecurrenceTest, DeltaRuleStepsFollowTheDefinition) {
  constexpr int64_t kDk = 24, kColumns = 20, kTokens = 50;
  std::vector<float> state(kDk * kColumns, 0.0f);
  std::vector<double> exact(kDk * kColumns, 0.0);
  for (uint32_t t = 0; t < kTokens; ++t) {
    std::vector<float> q = RandomFloats(kDk, 10 * t + 1);
    std::vector<float> k = RandomFloats(kDk, 10 * t + 2);
    const std::vector<float> v = RandomFloats(kColumns, 10 * t + 3);
    kernels().l2_norm(q.data(), 1e-6f, 1.0f, kDk, q.data());
    kernels().l2_norm(k.data(), 1e-6f, 1.0f, kDk, k.data());
    const float decay = 0.95f, beta = 0.5f;
    std::vector<float> out(kColumns);
    kernels().delta_rule_step(q.data(), k.data(), v.data(), decay, beta, kDk,
                              kColumns, kColumns, state.data(), out.data());
    for (int64_t j = 0; j < kColumns; ++j) {
      double prediction = 0, read = 0;
      for (int64_t i = 0; i < kDk; ++i) {
        exact[i * kColumns + j] *= decay;
        prediction += k[i] * exact[i * kColumns + j];
      }
      const double u = beta * (v[j] - prediction);
      for (int64_t i = 0; i < kDk; ++i) {
        exact[i * kColumns + j] += k[i] * u;
        read += q[i] * exact[i * kColumns + j];
      }
      EXPECT_TRUE(Near(out[j], read, 2e-5)) << "token " << t;
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
