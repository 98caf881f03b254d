#include "switchyard/plan/cost_model.h"

#include <string>

#include "gtest/gtest.h"
#include "model/config.h"
#include "switchyard/synth/synth_config.h"
#include "tests/testing/matchers.h"

namespace switchyard::plan {
namespace {

using ::switchyard::testing::IsOk;

constexpr double kGib = 1024.0 * 1024 * 1024;

CostModel Model(const std::string& format, int layers = 0,
                const std::string& overrides = "") {
  const absl::StatusOr<std::string> json = SynthConfig("", overrides, layers);
  EXPECT_THAT(json.status(), IsOk());
  const auto config = model::ParseModelConfig(*json);
  EXPECT_THAT(config.status(), IsOk());
  const auto formats = model::ParseWeightFormats(format);
  EXPECT_THAT(formats.status(), IsOk());
  auto model = CostModel::Create(*config, *formats, kernels::KvDType::kBF16);
  EXPECT_THAT(model.status(), IsOk());
  return *std::move(model);
}

double PartOf(const std::vector<MemoryPart>& parts, const std::string& what) {
  for (const MemoryPart& part : parts) {
    if (part.what == what) return part.bytes;
  }
  ADD_FAILURE() << "no part " << what;
  return 0;
}

// 48 layers x 512 experts x 3 x 512 x 2048 weights, at 4.5 bits, and at 16.
TEST(CostModelTest, TheExpertsOf80B) {
  const double weights = 48.0 * 512 * 3 * 512 * 2048;
  EXPECT_DOUBLE_EQ(Model("q4").ExpertBytes(), weights * 4.5 / 8);
  EXPECT_DOUBLE_EQ(Model("bf16").ExpertBytes(), weights * 2);
  EXPECT_DOUBLE_EQ(Model("bf16dot").ExpertBytes(), weights * 2);
  EXPECT_DOUBLE_EQ(Model("q4").OneExpertBytes(), 3 * 512 * 2048 * 4.5 / 8);
}

// Everything in the files but the experts, in bf16: by hand.
TEST(CostModelTest, TheOtherWeightsOf80B) {
  const double linear = 2048.0 * (2 * 2048 + 2 * 4096)  // q, k, v, z
                        + 2048 * 64                     // b, a
                        + 4 * 8192                      // convolution
                        + 32 + 32 + 128                 // A_log, dt_bias, norm
                        + 4096 * 2048;                  // out_proj
  const double full = 2048.0 * (2 * 4096) + 2 * 2048 * 512 + 4096 * 2048 +
                      2 * 256;             // q with its gate, k, v, o, norms
  const double every = 2048.0 * 512        // gate
                       + 3 * 2048.0 * 512  // shared expert
                       + 2048 + 2 * 2048;  // its gate, norms
  const double weights =
      36 * linear + 12 * full + 48 * every + 2 * 151936 * 2048.0 + 2048;
  EXPECT_NEAR(Model("bf16").DenseBytes(), 2 * weights, 1e-4 * weights);
}

// 36 layers of 32 x 128 x 128 and 3 x 8192 floats and a hidden state; 12 layers
// of two heads of 256 keys and values in bf16 a token.
TEST(CostModelTest, ASequencesState) {
  const CostModel model = Model("q4");
  const double fixed = 4.0 * (36 * (32 * 128 * 128 + 3 * 8192) + 2048);
  EXPECT_NEAR(model.SequenceBytes(0), fixed, 1024);
  const double token = 12 * 2 * 2 * 256 * 2;
  EXPECT_NEAR(model.SequenceBytes(8192) - model.SequenceBytes(4096),
              4096 * token, 0.01 * 4096 * token);
}

TEST(CostModelTest, MemoryHasItsParts) {
  const CostModel model = Model("q4");
  const auto expert =
      model.ExpertWorkerMemory({.expert_workers = 8, .copies = 2});
  EXPECT_DOUBLE_EQ(PartOf(expert, "experts"), model.ExpertBytes() / 4);
  EXPECT_NEAR(Sum(expert) / kGib, 11.5, 0.3);
  const auto attention = model.AttentionWorkerMemory(16, 8192);
  EXPECT_DOUBLE_EQ(PartOf(attention, "states of running sequences"),
                   16 * model.SequenceBytes(8192));
  EXPECT_DOUBLE_EQ(PartOf(attention, "weights but routed experts"),
                   model.DenseBytes());
}

const Node kNode = {.ram_bytes = 64 * kGib,
                    .limits = {.read_bytes = 100e9,
                               .integer_operations = 8e12,
                               .float_operations = 2e12}};
const Network kNetwork = {
    .name = "test", .bytes_per_second = 1e9, .dispatch_seconds = 300e-6};

// One token on one expert worker: 480 experts at three quarters of 100 GB/s; a
// row of 2,304 bytes there and ten of 8,192 back, for each of 48 layers.
TEST(CostModelTest, ATokenOnOneExpertWorkerByHand) {
  const CostModel model = Model("q4");
  const StepTime time = model.DecodeStep({}, kNode, kNetwork, 1, 0);
  EXPECT_NEAR(time.experts, 480 * model.OneExpertBytes() / 95e9, 1e-6);
  EXPECT_NEAR(time.wire, 48 * (2304 + 10 * 8192) / 1e9, 1e-9);
  EXPECT_NEAR(time.dispatch, 48 * 300e-6, 1e-12);
  EXPECT_EQ(time.queueing, 0);
  EXPECT_NEAR(time.expert_busy, time.experts / time.Total(), 1e-9);
  EXPECT_EQ(time.Bound(), "latency of dispatches, one after the other");
}

TEST(CostModelTest, MoreWorkersComputeLessAndSendTheSame) {
  const CostModel model = Model("q4");
  const auto step = [&](int workers, int copies) {
    return model.DecodeStep({.expert_workers = workers, .copies = copies},
                            kNode, kNetwork, 32, 4096);
  };
  EXPECT_LT(step(8, 1).experts, step(4, 1).experts);
  EXPECT_LT(step(8, 2).experts, step(8, 1).experts);  // evener
  EXPECT_DOUBLE_EQ(step(8, 1).dispatch, step(4, 1).dispatch);
}

// Two attention workers halve each one's sequences, and wait for each other.
TEST(CostModelTest, AttentionWorkersQueueForExperts) {
  const CostModel model = Model("q4");
  const StepTime one = model.DecodeStep({}, kNode, kNetwork, 32, 0);
  const StepTime two =
      model.DecodeStep({.attention_workers = 2}, kNode, kNetwork, 32, 0);
  EXPECT_EQ(one.queueing, 0);
  EXPECT_GT(two.queueing, 0);
  EXPECT_LT(two.attention, one.attention);
  EXPECT_LE(two.expert_busy, 1.0001);
}

TEST(CostModelTest, AWorkerIsNeverBusierThanAlways) {
  const CostModel model = Model("q4");
  const StepTime time =
      model.DecodeStep({.attention_workers = 32}, kNode, kNetwork, 1024, 0);
  EXPECT_LE(time.expert_busy, 1.0001);
  EXPECT_GT(time.expert_busy, 0.8);
}

}  // namespace
}  // namespace switchyard::plan
