// The model of time against what `switchyard bench` measured: four layers of
// the 80B's geometry in four bits, two threads of a Zen 4, with the limits that
// the same repetition measured (scripts/check_plan; the prompt by
// docs/benchmarks.md). Within 15 %, as a plan should be.

#include <cstdio>

#include "gtest/gtest.h"
#include "switchyard/plan/cost_model.h"
#include "switchyard/synth/synth_config.h"
#include "tests/testing/matchers.h"

namespace switchyard::plan {
namespace {

using ::switchyard::testing::IsOk;

constexpr double kTolerance = 0.15;

CostModel FourLayers() {
  const auto config = model::ParseModelConfig(*SynthConfig("", "", 4));
  EXPECT_THAT(config.status(), IsOk());
  auto model = CostModel::Create(*config, *model::ParseWeightFormats("q4"),
                                 kernels::KvDType::kBF16);
  EXPECT_THAT(model.status(), IsOk());
  return *std::move(model);
}

bench::MachineLimits Limits(double read_gbps, double integer_gops) {
  return {.read_bytes = read_gbps * 1e9,
          .integer_operations = integer_gops * 1e9,
          .float_operations = 150e9};
}

void ExpectTokensPerSecond(double predicted, double measured) {
  std::printf("%.1f tokens/s predicted, %.1f measured: %+.0f %%\n", predicted,
              measured, 100 * (predicted / measured - 1));
  EXPECT_NEAR(predicted / measured, 1, kTolerance)
      << predicted << " predicted, " << measured << " measured";
}

TEST(MeasuredTest, DecodeInProcess) {
  const CostModel model = FourLayers();
  ExpectTokensPerSecond(
      1 / model.DecodeSecondsInProcess(Limits(61.2, 939), 1, 0), 151.7);
  ExpectTokensPerSecond(
      16 / model.DecodeSecondsInProcess(Limits(33.8, 937), 16, 0), 254.8);
}

TEST(MeasuredTest, PrefillInProcess) {
  const CostModel model = FourLayers();
  ExpectTokensPerSecond(
      512 / model.PrefillSecondsInProcess(Limits(31.9, 625), 512), 470);
}

// Two expert workers of one thread each on the same machine: half of it is each
// one's, and all of it the attention worker's, who waits meanwhile.
double SecondsOnOneMachine(const CostModel& model, double read_gbps,
                           double integer_gops, int64_t sequences) {
  Node half;
  half.limits = Limits(read_gbps / 2, integer_gops / 2);
  half.limits.float_operations /= 2;
  const Network loopback = {.name = "loopback",
                            .bytes_per_second = 0.5e9,
                            .dispatch_seconds = 105e-6};
  const StepTime time =
      model.DecodeStep({.expert_workers = 2}, half, loopback, sequences, 0);
  return time.Total() - time.attention / 2;
}

TEST(MeasuredTest, DecodeWithTwoExpertWorkersOverTcp) {
  const CostModel model = FourLayers();
  ExpectTokensPerSecond(1 / SecondsOnOneMachine(model, 35.7, 934, 1), 82.3);
  ExpectTokensPerSecond(16 / SecondsOnOneMachine(model, 47.2, 937, 16), 217.6);
}

}  // namespace
}  // namespace switchyard::plan
