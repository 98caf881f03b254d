#include "switchyard/bench/accounting.h"

#include <string>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "model/config.h"
#include "tests/testing/matchers.h"

namespace switchyard::bench {
namespace {

using attention_worker::StepPart;
using kernels::DType;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;

model::ModelConfig Parse(const std::string& json) {
  auto config = model::ParseModelConfig(json);
  EXPECT_THAT(config.status(), IsOk());
  return config.ok() ? *config : model::ModelConfig();
}

// One linear and one full layer. H 64, vocabulary 100; full: 2 heads of 32, 1
// of keys; linear: 1 key and 2 value heads of 32, 4 taps; 8 experts of 32
// columns, 2 chosen, a shared one of 96 columns.
model::ModelConfig SmallConfig() {
  return Parse(R"({
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next",
    "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "linear_num_key_heads": 1, "linear_num_value_heads": 2,
    "linear_key_head_dim": 32, "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 96,
    "intermediate_size": 128, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": false})");
}

// Its matrices, by hand.
constexpr double kQkvz = (2 * 32 + 2 * 64) * 64;
constexpr double kBa = 2 * 2 * 64;
constexpr double kOutProj = 64 * 64;
constexpr double kAttentionProjections =
    2 * 64 * 64 + 32 * 64 + 32 * 64 + 64 * 64;
constexpr double kProjections = kQkvz + kBa + kOutProj + kAttentionProjections;
constexpr double kGates = 2 * 8 * 64;
constexpr double kShared = 2 * (3 * 96 * 64 + 64);
constexpr double kLmHead = 100 * 64;
constexpr double kExpert = 3 * 32 * 64;

absl::StatusOr<DType> AllBf16(absl::string_view name) { return DType::kBF16; }

const Cost& Of(const StepCost& cost, StepPart part) {
  return cost[static_cast<int>(part)];
}

TEST(AccountingTest, ASmallModelByHand) {
  const auto accounting =
      Accounting::ForConfig(SmallConfig(), DType::kBF16, AllBf16);
  ASSERT_THAT(accounting.status(), IsOk());
  EXPECT_EQ(accounting->active_weights(),
            kProjections + kGates + kShared + kLmHead + 2 * 2 * kExpert);

  // One sequence's token after 10 others.
  const StepCost cost =
      accounting->CostOf({.sequences = {{.context = 10, .tokens = 1}},
                          .logits_rows = 1,
                          .distinct_experts = 4});
  EXPECT_EQ(Of(cost, StepPart::kProjections).weight_bytes, 2 * kProjections);
  EXPECT_EQ(Of(cost, StepPart::kProjections).float_operations,
            2 * kProjections);
  EXPECT_EQ(Of(cost, StepPart::kProjections).integer_operations, 0);
  EXPECT_EQ(Of(cost, StepPart::kGate).weight_bytes, 2 * kGates);
  EXPECT_EQ(Of(cost, StepPart::kSharedExpert).weight_bytes, 2 * kShared);
  EXPECT_EQ(Of(cost, StepPart::kLmHead).weight_bytes, 2 * kLmHead);
  EXPECT_EQ(Of(cost, StepPart::kRoutedExperts).weight_bytes, 2 * 4 * kExpert);
  EXPECT_EQ(Of(cost, StepPart::kRoutedExperts).float_operations,
            2 * 2 * 2 * kExpert);
  // S of two value heads, [32, 32] floats each; three multiply-adds for each.
  EXPECT_EQ(Of(cost, StepPart::kRecurrence).state_bytes, 4 * 2 * 32 * 32);
  EXPECT_EQ(Of(cost, StepPart::kRecurrence).float_operations,
            2 * 3 * 2 * 32 * 32);
  // Three inputs of 2 * 32 + 64 channels; four taps of each as floats.
  EXPECT_EQ(Of(cost, StepPart::kConvolution).state_bytes, 4 * 3 * 128);
  EXPECT_EQ(Of(cost, StepPart::kConvolution).weight_bytes, 4 * 4 * 128);
  // K and V of eleven tokens, one head of 32; two query heads.
  EXPECT_EQ(Of(cost, StepPart::kAttention).state_bytes, 11 * 2 * 32 * 4);
  EXPECT_EQ(Of(cost, StepPart::kAttention).float_operations,
            2 * 2 * 11 * 2 * 32);
  EXPECT_EQ(Of(cost, StepPart::kDispatch).bytes(), 0);
  EXPECT_EQ(Of(cost, StepPart::kSampling).bytes(), 0);
}

// Products with bf16 activations are counted by themselves; a gate keeps f32's.
TEST(AccountingTest, WeightsOfBf16DotProductsAreCountedByThemselves) {
  const auto accounting = Accounting::ForConfig(
      SmallConfig(), DType::kBF16Dot,
      [](absl::string_view name) -> absl::StatusOr<DType> {
        return absl::EndsWith(name, "_ba.weight") ? DType::kBF16
                                                  : DType::kBF16Dot;
      });
  ASSERT_THAT(accounting.status(), IsOk());
  const StepCost cost = accounting->CostOf(
      {.sequences = {{0, 3}, {5, 1}}, .logits_rows = 2, .distinct_experts = 1});
  EXPECT_EQ(Of(cost, StepPart::kProjections).weight_bytes, 2 * kProjections);
  EXPECT_EQ(Of(cost, StepPart::kProjections).bf16_operations,
            4 * 2 * (kProjections - kBa));
  EXPECT_EQ(Of(cost, StepPart::kProjections).float_operations, 4 * 2 * kBa);
  EXPECT_EQ(Of(cost, StepPart::kRoutedExperts).bf16_operations,
            4 * 2 * 2 * 2 * kExpert);
  EXPECT_EQ(Of(cost, StepPart::kRoutedExperts).operations(),
            4 * 2 * 2 * 2 * kExpert);
  const Cost part = {.bf16_operations = 30};
  StepCost step;
  step[0] = part;
  step[0] += part;
  EXPECT_EQ(RooflineSeconds(step, {.bf16_operations = 20}), 3);
}

TEST(AccountingTest, QuantisedWeightsAreIntegersAndSmaller) {
  const auto accounting = Accounting::ForConfig(
      SmallConfig(), DType::kQ4,
      [](absl::string_view name) -> absl::StatusOr<DType> {
        return absl::EndsWith(name, "_ba.weight") ||
                       absl::EndsWith(name, "mlp.gate.weight") ||
                       absl::EndsWith(name, "expert_gate.weight")
                   ? DType::kBF16
                   : DType::kQ8;
      });
  ASSERT_THAT(accounting.status(), IsOk());
  const StepCost cost = accounting->CostOf(
      {.sequences = {{0, 3}, {5, 1}}, .logits_rows = 2, .distinct_experts = 1});
  // 8.5 bits a weight; four tokens.
  EXPECT_EQ(Of(cost, StepPart::kProjections).weight_bytes,
            (kProjections - kBa) * 8.5 / 8 + 2 * kBa);
  EXPECT_EQ(Of(cost, StepPart::kProjections).integer_operations,
            4 * 2 * (kProjections - kBa));
  EXPECT_EQ(Of(cost, StepPart::kProjections).float_operations, 4 * 2 * kBa);
  // 100 rows are seven panels of 16; two rows of logits.
  EXPECT_EQ(Of(cost, StepPart::kLmHead).weight_bytes, 112 * 64 * 8.5 / 8);
  EXPECT_EQ(Of(cost, StepPart::kLmHead).integer_operations, 2 * 2 * kLmHead);
  // down_proj's 32 columns are padded to a block of 64.
  EXPECT_EQ(Of(cost, StepPart::kRoutedExperts).weight_bytes,
            (2 * 32 * 64 + 64 * 64) * 4.5 / 8);
  EXPECT_EQ(Of(cost, StepPart::kRoutedExperts).float_operations, 0);
  EXPECT_EQ(Of(cost, StepPart::kRoutedExperts).integer_operations,
            4 * 2 * 2 * 2 * kExpert);
  // Keys that the first sequence's tokens see: 1 + 2 + 3; the second's: 6.
  EXPECT_EQ(Of(cost, StepPart::kAttention).float_operations,
            2 * 2 * 12 * 2 * 32);
  EXPECT_EQ(Of(cost, StepPart::kAttention).state_bytes, (3 + 6) * 2 * 32 * 4);
  EXPECT_EQ(Of(cost, StepPart::kRecurrence).state_bytes, 2 * (4 * 2 * 32 * 32));
}

TEST(AccountingTest, WithoutLogitsTheHeadIsNotRead) {
  const auto accounting =
      Accounting::ForConfig(SmallConfig(), DType::kBF16, AllBf16);
  ASSERT_THAT(accounting.status(), IsOk());
  const StepCost cost = accounting->CostOf({.sequences = {{0, 7}}});
  EXPECT_EQ(Of(cost, StepPart::kLmHead).bytes(), 0);
  EXPECT_EQ(Of(cost, StepPart::kLmHead).operations(), 0);
}

TEST(AccountingTest, ATiedHeadHasTheEmbeddingsType) {
  const auto accounting = Accounting::ForConfig(
      SmallConfig(), DType::kBF16,
      [](absl::string_view name) -> absl::StatusOr<DType> {
        if (name == "lm_head.weight") return absl::NotFoundError("tied");
        return name == "model.embed_tokens.weight" ? DType::kF32 : DType::kBF16;
      });
  ASSERT_THAT(accounting.status(), IsOk());
  const StepCost cost =
      accounting->CostOf({.sequences = {{0, 1}}, .logits_rows = 1});
  EXPECT_EQ(Of(cost, StepPart::kLmHead).weight_bytes, 4 * kLmHead);
}

TEST(AccountingTest, OtherErrorsAreTheCheckpoints) {
  EXPECT_THAT(Accounting::ForConfig(
                  SmallConfig(), DType::kBF16,
                  [](absl::string_view name) -> absl::StatusOr<DType> {
                    return absl::DataLossError(name);
                  })
                  .status(),
              StatusIs(absl::StatusCode::kDataLoss));
}

// Four layers of Qwen3-Next-80B-A3B, which all measurements of speed use.
TEST(AccountingTest, FourLayersOfThe80B) {
  const model::ModelConfig config = Parse(R"({
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next",
    "vocab_size": 151936, "hidden_size": 2048, "num_hidden_layers": 4,
    "full_attention_interval": 4, "num_attention_heads": 16,
    "num_key_value_heads": 2, "head_dim": 256, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    "num_experts": 512, "num_experts_per_tok": 10,
    "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
    "intermediate_size": 5120, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "max_position_embeddings": 262144,
    "tie_word_embeddings": false})");
  const auto accounting = Accounting::ForConfig(
      config, DType::kQ8,
      [](absl::string_view name) { return absl::StatusOr<DType>(DType::kQ8); });
  ASSERT_THAT(accounting.status(), IsOk());
  // 126 M routed, 145 M dense and shared, 311 M lm_head.
  EXPECT_NEAR(static_cast<double>(accounting->active_weights()), 582e6, 1e6);
  EXPECT_NEAR(accounting->active_bytes(), 618e6, 1.5e6);
  const StepCost cost = accounting->CostOf(
      {.sequences = {{0, 1}}, .logits_rows = 1, .distinct_experts = 40});
  const auto weights = [&cost](StepPart part) {
    return Of(cost, part).integer_operations / 2;
  };
  EXPECT_NEAR(weights(StepPart::kRoutedExperts), 126e6, 0.5e6);
  EXPECT_NEAR(weights(StepPart::kLmHead), 311e6, 0.5e6);
  EXPECT_NEAR(weights(StepPart::kProjections) +
                  weights(StepPart::kSharedExpert) + weights(StepPart::kGate),
              145e6, 0.5e6);
  // All of it is read once, and the routed experts only as far as chosen.
  EXPECT_NEAR(Of(cost, StepPart::kRoutedExperts).weight_bytes, 126e6 * 8.5 / 8,
              1e6);
  // 512 * (1 - (1 - 10 / 512)^16) in each of four layers.
  EXPECT_NEAR(ExpectedDistinctExperts(config, 16) / 4, 138.6, 0.2);
  EXPECT_NEAR(ExpectedDistinctExperts(config, 1) / 4, 10, 1e-9);
}

TEST(AccountingTest, TheRooflineIsTheSlowerOfReadingAndComputing) {
  StepCost cost = {};
  cost[static_cast<int>(StepPart::kLmHead)] = {.weight_bytes = 100,
                                               .integer_operations = 10};
  cost[static_cast<int>(StepPart::kRecurrence)] = {.state_bytes = 10,
                                                   .float_operations = 60};
  const MachineLimits limits = {
      .read_bytes = 10, .integer_operations = 100, .float_operations = 20};
  // 10 s of reading beside 0.1 s; then 3 s of computing beside 1 s.
  EXPECT_DOUBLE_EQ(RooflineSeconds(cost, limits), 13);
  const Cost total = Total(cost);
  EXPECT_EQ(total.bytes(), 110);
  EXPECT_EQ(total.operations(), 70);
}

}  // namespace
}  // namespace switchyard::bench
