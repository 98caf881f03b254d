#include "attention_worker/sampling/philox.h"

#include <cstdint>
#include <set>

#include "attention_worker/sampling/sampler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::ElementsAre;

// Random123's known answers (kat_vectors, "philox4x32 10"): zeros, ones, and
// the digits of pi.
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                         {0xffffffff, 0xffffffff}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                         {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

// The words are used low first; 53 bits of them.
TEST(PhiloxTest, UniformIsTheFirstTwoWordsOfTheZeroAnswer) {
  const uint64_t bits = 0xe169c58d6627e8d5;
  EXPECT_EQ(PhiloxUniform(0, 0),
            static_cast<double>(bits >> 11) / static_cast<double>(1LL << 53));
}

TEST(PhiloxTest, UniformUsesAllBitsOfSeedAndPosition) {
  std::set<double> values;
  for (int bit = 0; bit < 64; ++bit) {
    values.insert(PhiloxUniform(uint64_t{1} << bit, 0));
    values.insert(PhiloxUniform(0, uint64_t{1} << bit));
  }
  EXPECT_EQ(values.size(), 128);
}

TEST(PhiloxTest, UniformStaysBelowOneWithTheRightMean) {
  constexpr int kDraws = 100000;
  double sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = PhiloxUniform(7, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  // The mean's standard deviation is sqrt(1/12/n) = 0.0009; five of them.
  EXPECT_NEAR(sum / kDraws, 0.5, 0.0046);
}

}  // namespace
}  // namespace switchyard::attention_worker
