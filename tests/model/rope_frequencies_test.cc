#include "model/rope_frequencies.h"

#include <cmath>
#include <string>

#include "base/json.h"
#include "base/mapped_file.h"
#include "gtest/gtest.h"
#include "model/config.h"
#include "model/safetensors.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard::model {
namespace {

using testing::FixturePath;
using testing::IsOk;

ModelConfig ReadConfig(const std::string& name) {
  const auto text = ReadFile(FixturePath(name), 1 << 20);
  EXPECT_THAT(text, IsOk());
  const auto config = ParseModelConfig(*text);
  EXPECT_THAT(config, IsOk());
  return *config;
}

class RopeFrequenciesGolden : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Fixtures, RopeFrequenciesGolden,
                         ::testing::Values("tiny_a_bf16", "tiny_a_yarn",
                                           "tiny_b_fp32"),
                         [](const auto& info) { return info.param; });

TEST_P(RopeFrequenciesGolden, EqualsTransformers) {
  const std::string name = GetParam();
  const RopeFrequencies rope =
      ComputeRopeFrequencies(ReadConfig(name + "/config.json"));
  const auto golden =
      SafetensorsFile::Open(FixturePath(name + "/golden.safetensors"));
  ASSERT_THAT(golden, IsOk());
  const auto expected = (*golden)->ReadFloats("rope.inv_freq");
  ASSERT_THAT(expected, IsOk());
  ASSERT_EQ(rope.inv_freq.size(), expected->size());
  for (size_t i = 0; i < expected->size(); ++i) {
    // The reference computes in float32.
    EXPECT_NEAR(rope.inv_freq[i], (*expected)[i], 1e-6 * (*expected)[i]) << i;
  }
  const auto facts = ReadFile(FixturePath(name + "/golden.json"), 1 << 20);
  ASSERT_THAT(facts, IsOk());
  const auto parsed = ParseJson(*facts);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_NEAR(rope.attention_factor,
              parsed->at("rope_attention_factor").get<double>(), 1e-12);
}

// Pairs below the ramp turn as without YaRN, pairs above it 4 times slower; the
// bounds for the released models are known.
TEST(RopeFrequencies, RampOfTheReleasedModels) {
  const ModelConfig yarn =
      ReadConfig("configs/config.qwen3-next-80b-a3b.yarn.json");
  ModelConfig plain = yarn;
  plain.rope.yarn = false;
  const auto with = ComputeRopeFrequencies(yarn);
  const auto without = ComputeRopeFrequencies(plain);
  ASSERT_EQ(with.inv_freq.size(), 32u);
  for (int i = 0; i < 32; ++i) {
    const double ratio = without.inv_freq[i] / with.inv_freq[i];
    if (i <= 14) {
      EXPECT_DOUBLE_EQ(ratio, 1) << i;
    } else if (i >= 22) {
      EXPECT_DOUBLE_EQ(ratio, 4) << i;
    } else {
      // 1 / (1 - ramp + ramp / 4) with ramp = (i - 14) / 8.
      EXPECT_NEAR(ratio, 1 / (1 - (i - 14) / 8.0 * 0.75), 1e-12) << i;
    }
  }
  EXPECT_EQ(without.attention_factor, 1);
}

TEST(RopeFrequencies, WithoutTruncationTheRampHasFractionalEnds) {
  ModelConfig config =
      ReadConfig("configs/config.qwen3-next-80b-a3b.yarn.json");
  const double truncated = ComputeRopeFrequencies(config).inv_freq[15];
  config.rope.truncate = false;
  // dim(32) = 14.24096 and dim(1) = 21.12165, not 14 and 22.
  const double ramp = (15 - 14.24096) / (21.12165 - 14.24096);
  const double plain = std::pow(1e7, -30.0 / 64);
  EXPECT_NEAR(ComputeRopeFrequencies(config).inv_freq[15],
              plain * (1 - 0.75 * ramp), plain * 1e-4);
  EXPECT_GT(std::abs(truncated / plain - (1 - 0.75 * ramp)), 1e-3);
}

// lo == hi must not divide by zero.
TEST(RopeFrequencies, AnEmptyRampIsAStep) {
  ModelConfig config =
      ReadConfig("configs/config.qwen3-next-80b-a3b.yarn.json");
  config.rope.beta_fast = config.rope.beta_slow =
      45000;  // dim: -0.15, both ends at 0
  const auto rope = ComputeRopeFrequencies(config);
  EXPECT_EQ(rope.inv_freq[0], 1);
  for (int i = 1; i < 32; ++i) {
    EXPECT_NEAR(rope.inv_freq[i], std::pow(1e7, -i / 32.0) / 4, 1e-12) << i;
  }
}

}  // namespace
}  // namespace switchyard::model
