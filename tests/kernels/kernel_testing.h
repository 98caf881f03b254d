// What the tests of kernels/ share: inputs, comparison of bits, and the fixture
// that runs a test once for each table that this CPU can run.

#ifndef SWITCHYARD_TESTS_KERNELS_KERNEL_TESTING_H_
#define SWITCHYARD_TESTS_KERNELS_KERNEL_TESTING_H_

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernel_table.h"
#include "tests/kernels/guarded_buffer.h"

namespace switchyard::kernels {

// Around every vector width and its tail, and the model's own widths.
inline constexpr int64_t kLengths[] = {0,  1,  2,   3,   7,   8,   9,   15,  16,
                                       17, 31, 32,  33,  47,  48,  49,  63,  64,
                                       65, 96, 127, 128, 129, 256, 511, 2048};

// kOrdinary: like activations. kExtreme: also signed zeros, subnormals and the
// largest floats, whose sums overflow. kNonFinite: also infinities and NaN.
enum class Values { kOrdinary, kExtreme, kNonFinite };
inline constexpr Values kAllValues[] = {Values::kOrdinary, Values::kExtreme,
                                        Values::kNonFinite};

inline std::vector<float> RandomFloats(int64_t n, uint32_t seed,
                                       Values values = Values::kOrdinary) {
  using Limits = std::numeric_limits<float>;
  constexpr float kSpecial[] = {0.0f,
                                -0.0f,
                                Limits::denorm_min(),
                                1e-40f,
                                -1e-40f,
                                -Limits::denorm_min(),
                                Limits::min(),
                                -Limits::min(),
                                1e-30f,
                                Limits::max(),
                                -Limits::max(),
                                -1e30f,
                                100.0f,
                                -100.0f,
                                88.8f,
                                -88.8f,
                                -103.9f,
                                -104.5f,
                                Limits::infinity(),
                                -Limits::infinity(),
                                Limits::quiet_NaN()};
  constexpr int kNonFiniteCount = 3;  // the last ones
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> one_in_four(0, 3);
  std::uniform_int_distribution<int> special(
      0, static_cast<int>(std::size(kSpecial)) - 1 -
             (values == Values::kNonFinite ? 0 : kNonFiniteCount));
  std::vector<float> result(static_cast<size_t>(n));
  for (float& value : result) {
    value = normal(rng);
    if (values != Values::kOrdinary && one_in_four(rng) == 0) {
      value = kSpecial[special(rng)];
    }
  }
  return result;
}

// A guarded copy.
inline std::unique_ptr<GuardedBuffer> Guarded(const std::vector<float>& from) {
  auto buffer = std::make_unique<GuardedBuffer>(from.size() * sizeof(float));
  if (!from.empty()) {
    std::memcpy(buffer->data(), from.data(), from.size() * sizeof(float));
  }
  return buffer;
}

// The same bits, or NaN both (which NaN is not promised).
inline bool SameBits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

inline ::testing::AssertionResult SameBits(const float* actual,
                                           const float* expected, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!SameBits(actual[i], expected[i])) {
      return ::testing::AssertionFailure()
             << "element " << i << " of " << n << ": " << actual[i] << " (0x"
             << std::hex << std::bit_cast<uint32_t>(actual[i]) << "), expected "
             << expected[i] << " (0x" << std::bit_cast<uint32_t>(expected[i])
             << ")";
    }
  }
  return ::testing::AssertionSuccess();
}

// False also where `actual` is NaN.
inline ::testing::AssertionResult Near(float actual, double expected,
                                       double tolerance) {
  const double error = std::abs(static_cast<double>(actual) - expected);
  if (error <= tolerance) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << actual << ", expected " << expected << " within " << tolerance;
}

// Half the distance from 1 to the next float: the error of one rounding.
inline constexpr double kFloatEpsilon = 0x1p-24;

// Each test runs once for each table that this CPU can run; the scalar table is
// among them, so that it too is held against the definition in double.
class KernelsTest : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kernels() const { return *GetParam(); }
  static const KernelTable& reference() { return kScalarKernels; }
};

// In an unnamed namespace, one for each test file.
#define SWITCHYARD_FOR_ALL_KERNELS(Suite)                             \
  INSTANTIATE_TEST_SUITE_P(                                           \
      Isa, Suite, ::testing::ValuesIn(AvailableKernels()),            \
      [](const ::testing::TestParamInfo<const KernelTable*>& table) { \
        return std::string(table.param->name);                        \
      })

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_TESTS_KERNELS_KERNEL_TESTING_H_
