#include "attention_worker/sampling/portable_math.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

TEST(PortableLogTest, IsWithinTwoUlpOfTheMathLibrary) {
  for (double x = 1e-300; x < 1e300; x *= 1.0173) {
    const double expected = std::log(x);
    ASSERT_NEAR(PortableLog(x), expected,
                2 * kEpsilon * std::abs(expected) + 1e-18)
        << x;
  }
  for (double x = 0.5; x < 2.1; x += 0.00013) {
    const double expected = std::log(x);
    ASSERT_NEAR(PortableLog(x), expected, 3 * kEpsilon * std::abs(expected))
        << x;
  }
}

TEST(PortableLogTest, OneIsExactlyZero) { EXPECT_EQ(PortableLog(1.0), 0.0); }

}  // namespace
}  // namespace switchyard::attention_worker
