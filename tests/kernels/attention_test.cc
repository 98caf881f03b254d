// Rows of the KV cache, and attention's two products over them: the same bits
// as dots and axpys of the rows as floats.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kv_rows.h"
#include "tests/kernels/kernel_testing.h"

namespace switchyard::kernels {
namespace {

constexpr KvDType kDTypes[] = {KvDType::kF32, KvDType::kBF16, KvDType::kI8};
constexpr int64_t kDims[] = {1, 16, 19, 31, 32, 33, 48, 64, 80, 100, 256};
constexpr int64_t kQueryCounts[] = {0, 1, 3, 4, 7, 8, 9, 17};

// n rows of random floats, encoded, in guarded memory that begins at any
// address; and the floats that they then stand for.
struct Rows {
  Rows(KvDType dtype, int64_t n, int64_t dim, Values values)
      : encoded(static_cast<size_t>(n * KvRowBytes(dtype, dim))),
        view{.data = encoded.data(), .dtype = dtype, .next = encoded.data()} {
    for (int64_t j = 0; j < n; ++j) {
      const std::vector<float> x =
          RandomFloats(dim, static_cast<uint32_t>(100 + j), values);
      char* const row =
          static_cast<char*>(encoded.data()) + j * KvRowBytes(dtype, dim);
      EncodeKvRow(dtype, x.data(), dim, row);
      floats.emplace_back(static_cast<size_t>(dim));
      DecodeKvRow(dtype, row, dim, floats.back().data());
    }
  }

  GuardedBuffer encoded;
  KvRows view;
  std::vector<std::vector<float>> floats;
};

std::vector<float> RoundTrip(KvDType dtype, const std::vector<float>& x) {
  const auto dim = static_cast<int64_t>(x.size());
  GuardedBuffer row(static_cast<size_t>(KvRowBytes(dtype, dim)));
  EncodeKvRow(dtype, x.data(), dim, row.data());
  EXPECT_TRUE(row.GuardsIntact());
  std::vector<float> y(x.size());
  DecodeKvRow(dtype, row.data(), dim, y.data());
  return y;
}

TEST(KvRowsTest, Sizes) {
  EXPECT_EQ(KvRowBytes(KvDType::kF32, 256), 1024);
  EXPECT_EQ(KvRowBytes(KvDType::kBF16, 256), 512);
  EXPECT_EQ(KvRowBytes(KvDType::kI8, 256), 288);
  EXPECT_EQ(KvRowBytes(KvDType::kI8, 33), 33 + 2 * 4);
}

TEST(KvRowsTest, FloatsAreKept) {
  for (const Values values : kAllValues) {
    const std::vector<float> x = RandomFloats(77, /*seed=*/1, values);
    EXPECT_TRUE(SameBits(RoundTrip(KvDType::kF32, x).data(), x.data(), 77));
  }
}

TEST(KvRowsTest, Bf16IsRoundedToNearestEven) {
  const std::vector<float> x = {1.0f,
                                0x1.01p+0f,      // half a place: down to even
                                0x1.03p+0f,      // half a place: up to even
                                0x1.010002p+0f,  // above the half
                                -0x1.00fffep+0f,
                                -0.0f,
                                0x1.fffffep+127f,
                                0x1p-149f};
  const std::vector<float> expected = {1.0f,  1.0f,  0x1.04p+0f, 0x1.02p+0f,
                                       -1.0f, -0.0f, INFINITY,   0.0f};
  EXPECT_TRUE(SameBits(RoundTrip(KvDType::kBF16, x).data(), expected.data(),
                       static_cast<int64_t>(x.size())));
  // A NaN whose payload lies in the bits that go stays one.
  EXPECT_TRUE(std::isnan(
      RoundTrip(KvDType::kBF16, {std::bit_cast<float>(0x7f800001u)})[0]));
}

TEST(KvRowsTest, Int8IsWithinHalfAStepOfEachGroup) {
  for (const int64_t dim : kDims) {
    std::vector<float> x = RandomFloats(dim, /*seed=*/3);
    // Groups of very different sizes.
    for (int64_t i = 0; i < dim; ++i) {
      x[i] *= std::ldexp(1.0f, static_cast<int>(i / kKvGroupColumns) * 9 - 20);
    }
    const std::vector<float> y = RoundTrip(KvDType::kI8, x);
    for (int64_t g = 0; g < dim; g += kKvGroupColumns) {
      const int64_t end = std::min(g + kKvGroupColumns, dim);
      float largest = 0;
      for (int64_t i = g; i < end; ++i) {
        largest = std::max(largest, std::abs(x[i]));
      }
      for (int64_t i = g; i < end; ++i) {
        EXPECT_TRUE(Near(y[i], x[i], 0.5001 * largest / 127));
      }
    }
  }
}

TEST(KvRowsTest, Int8RoundsToNearestEven) {
  std::vector<float> x(32);
  x[0] = 127;  // so that the scale is 1
  x[1] = 2.5f;
  x[2] = 3.5f;
  x[3] = -2.5f;
  x[4] = 2.51f;
  const std::vector<float> y = RoundTrip(KvDType::kI8, x);
  EXPECT_EQ(y[0], 127);
  EXPECT_EQ(y[1], 2);
  EXPECT_EQ(y[2], 4);
  EXPECT_EQ(y[3], -2);
  EXPECT_EQ(y[4], 3);
}

TEST(KvRowsTest, Int8ShowsWhatIsNotFiniteInItsGroupOnly) {
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    std::vector<float> x = RandomFloats(96, /*seed=*/4);
    x[40] = bad;
    const std::vector<float> y = RoundTrip(KvDType::kI8, x);
    for (int64_t i = 0; i < 96; ++i) {
      EXPECT_EQ(std::isnan(y[i]), i / kKvGroupColumns == 1) << i;
    }
  }
}

TEST(KvRowsTest, Int8OfTinyAndHugeValues) {
  std::vector<float> x(64, 0x1p-101f);
  std::fill(x.begin() + 32, x.end(), std::numeric_limits<float>::max());
  const std::vector<float> y = RoundTrip(KvDType::kI8, x);
  for (int64_t i = 0; i < 32; ++i) EXPECT_EQ(y[i], 0);
  for (int64_t i = 32; i < 64; ++i) {
    EXPECT_GT(y[i], 0.99f * std::numeric_limits<float>::max());
  }
}

class AttentionTest : public KernelsTest {};
SWITCHYARD_FOR_ALL_KERNELS(AttentionTest);

TEST_P(AttentionTest, ScoresAreScaledDots) {
  for (const KvDType dtype : kDTypes) {
    for (const Values values : kAllValues) {
      for (const int64_t dim : kDims) {
        for (const int64_t n : {0, 1, 2, 3, 5, 8}) {
          const Rows keys(dtype, n, dim, values);
          for (const int64_t queries : kQueryCounts) {
            const int64_t stride = n + 2;
            auto q = Guarded(RandomFloats(queries * dim, /*seed=*/1, values));
            const int64_t floats = queries == 0 ? 0 : queries * stride - 2;
            GuardedBuffer actual(floats * sizeof(float));
            GuardedBuffer expected(floats * sizeof(float));
            kernels().attention_scores(q->floats(), queries, keys.view, n, dim,
                                       0.0625f, actual.floats(), stride);
            for (int64_t h = 0; h < queries; ++h) {
              for (int64_t j = 0; j < n; ++j) {
                expected.floats()[h * stride + j] =
                    0.0625f * reference().dot(q->floats() + h * dim,
                                              keys.floats[j].data(), dim);
              }
            }
            EXPECT_TRUE(SameBits(actual.floats(), expected.floats(), floats))
                << "dtype " << static_cast<int>(dtype) << ", dim " << dim
                << ", queries " << queries << ", n " << n;
            EXPECT_TRUE(actual.GuardsIntact());
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, ValuesAreRepeatedAxpys) {
  for (const KvDType dtype : kDTypes) {
    for (const Values values : kAllValues) {
      for (const int64_t dim : kDims) {
        for (const int64_t n : {0, 1, 3, 17}) {
          const Rows rows(dtype, n, dim, values);
          for (const int64_t queries : kQueryCounts) {
            const int64_t stride = n + 2;
            auto weights =
                Guarded(RandomFloats(queries == 0 ? 0 : queries * stride - 2,
                                     /*seed=*/1, values));
            const std::vector<float> before =
                RandomFloats(queries * dim, /*seed=*/3, values);
            auto actual = Guarded(before);
            auto expected = Guarded(before);
            kernels().attention_values(weights->floats(), stride, queries,
                                       rows.view, n, dim, actual->floats());
            for (int64_t h = 0; h < queries; ++h) {
              for (int64_t j = 0; j < n; ++j) {
                reference().axpy(weights->floats()[h * stride + j],
                                 rows.floats[j].data(),
                                 expected->floats() + h * dim, dim);
              }
            }
            EXPECT_TRUE(
                SameBits(actual->floats(), expected->floats(), queries * dim))
                << "dtype " << static_cast<int>(dtype) << ", dim " << dim
                << ", queries " << queries << ", n " << n;
            EXPECT_TRUE(actual->GuardsIntact());
          }
        }
      }
    }
  }
}

// What is to be read next is asked for, not read: it may lie anywhere.
TEST_P(AttentionTest, NextMayPointAnywhere) {
  Rows keys(KvDType::kF32, 4, 64, Values::kOrdinary);
  keys.view.next = reinterpret_cast<const void*>(uintptr_t{64});
  const std::vector<float> q = RandomFloats(8 * 64, /*seed=*/1);
  std::vector<float> scores(8 * 4), y(8 * 64);
  kernels().attention_scores(q.data(), 8, keys.view, 4, 64, 1.0f, scores.data(),
                             4);
  kernels().attention_values(scores.data(), 4, 8, keys.view, 4, 64, y.data());
  EXPECT_TRUE(SameBits(scores[0],
                       reference().dot(q.data(), keys.floats[0].data(), 64)));
}

}  // namespace
}  // namespace switchyard::kernels
