#include "attention_worker/memory_plan.h"

#include <cstdint>
#include <memory>

#include "absl/strings/match.h"
#include "base/compute_pool.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quantized.h"
#include "model/checkpoint.h"
#include "model/conversion/convert.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMebibyte = 1 << 20;

// One layer of each kind: 64 KiB a state and 1 KiB a token.
StateShape Shape() {
  model::ModelConfig config;
  config.layer_types = {model::LayerType::kLinearAttention,
                        model::LayerType::kFullAttention};
  config.num_key_value_heads = 1;
  config.head_dim = 128;  // times K and V, times 4 bytes
  config.linear_num_key_heads = 1;
  config.linear_num_value_heads = 1;
  config.linear_key_head_dim = 128;
  config.linear_value_head_dim = 128;
  config.linear_conv_kernel_dim = 1;  // no tail
  return StateShape(config);
}

TEST(MemoryPlanTest, HalfOfTheRestIsForStates) {
  const auto plan = PlanMemory(
      {.available_bytes = 100 * kMebibyte, .weight_bytes = 60 * kMebibyte},
      Shape(), 1000);
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->state_bytes, 20 * kMebibyte);
  EXPECT_EQ(plan->max_model_len, 1000);
  EXPECT_THAT(plan->explanation,
              AllOf(HasSubstr("100.0 MiB in all"), HasSubstr("60.0 MiB"),
                    HasSubstr("20.0 MiB"), HasSubstr("1024 bytes a token")));
}

TEST(MemoryPlanTest, TheContextShrinksToWhatFits) {
  const auto plan = PlanMemory({.available_bytes = 100 * kMebibyte,
                                .state_bytes = 64 * 1024 + 10 * 64 * 1024},
                               Shape(), 1000);
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->max_model_len, 641);  // the last token is not read
  EXPECT_THAT(plan->explanation, HasSubstr("as much as"));
}

TEST(MemoryPlanTest, AContextThatWasAskedForDoesNotShrink) {
  EXPECT_THAT(PlanMemory({.available_bytes = 100 * kMebibyte,
                          .state_bytes = 64 * 1024 + 10 * 64 * 1024,
                          .max_model_len = 642},
                         Shape(), 1000),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("one sequence of 642 tokens")));
  EXPECT_THAT(PlanMemory({.available_bytes = 100 * kMebibyte,
                          .state_bytes = 64 * 1024 + 10 * 64 * 1024,
                          .max_model_len = 641},
                         Shape(), 1000),
              IsOk());
}

TEST(MemoryPlanTest, LongerThanTheModelsContextIsRefused) {
  EXPECT_THAT(
      PlanMemory({.available_bytes = 100 * kMebibyte, .max_model_len = 1001},
                 Shape(), 1000),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("1001"), HasSubstr("1000"))));
}

TEST(MemoryPlanTest, WhatDoesNotFitSaysSo) {
  // The weights alone.
  EXPECT_THAT(PlanMemory({.available_bytes = 100 * kMebibyte,
                          .weight_bytes = 101 * kMebibyte},
                         Shape(), 1000),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("101.0 MiB"), HasSubstr("100.0 MiB"))));
  // With the states that were asked for.
  EXPECT_THAT(
      PlanMemory({.available_bytes = 100 * kMebibyte,
                  .weight_bytes = 60 * kMebibyte,
                  .state_bytes = 41 * kMebibyte},
                 Shape(), 1000),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("41.0 MiB")));
  // Not even one token.
  EXPECT_THAT(PlanMemory({.available_bytes = 64 * 1024}, Shape(), 1000),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("raise --state-memory")));
}

TEST(MeasureWeightsTest, SplitsTheTensorsIntoExpertsAndTheRest) {
  const auto checkpoint = model::Checkpoint::Open(FixturePath("tiny_a_bf16"));
  ASSERT_THAT(checkpoint, IsOk());
  const auto bytes = MeasureWeights(**checkpoint);
  ASSERT_THAT(bytes, IsOk());
  const model::ModelConfig& config = (*checkpoint)->config();
  // Three bf16 matrices [H, I] of each expert of each layer.
  EXPECT_EQ(bytes->experts, int64_t{config.num_hidden_layers} *
                                config.num_experts * 3 * config.hidden_size *
                                config.moe_intermediate_size * 2);
  // Every other tensor of the weight files, but the MTP head's.
  int64_t others = 0;
  const auto tensors = testing::ReadTensors(FixturePath("tiny_a_bf16"));
  ASSERT_THAT(tensors, IsOk());
  for (const auto& tensor : *tensors) {
    if (absl::StartsWith(tensor.name, "mtp.")) continue;
    if (absl::StrContains(tensor.name, ".mlp.experts.")) continue;
    others += static_cast<int64_t>(tensor.bytes.size());
  }
  EXPECT_EQ(bytes->others, others);
}

// A tied head is the embedding, unless it is quantised: then it is there too.
TEST(MeasureWeightsTest, CountsAQuantisedTiedHead) {
  TempDir dir;
  switchyard::testing::RandomCheckpointOptions options;
  Json config = ParseJson(options.config_json).value();
  config["tie_word_embeddings"] = true;
  options.config_json = DumpJson(config);
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.File("model")), IsOk());
  InlinePool pool;
  int64_t others[2];
  for (const bool quantized : {false, true}) {
    model::ConvertOptions convert;
    convert.model_dir = dir.File("model");
    convert.out_dir = dir.File(quantized ? "q8" : "source");
    convert.formats.lm_head =
        quantized ? model::WeightFormat::kQ8 : model::WeightFormat::kSource;
    convert.pool = &pool;
    ASSERT_THAT(model::ConvertCheckpoint(convert), IsOk());
    const auto checkpoint = model::Checkpoint::Open(convert.out_dir);
    ASSERT_THAT(checkpoint, IsOk());
    const auto bytes = MeasureWeights(**checkpoint);
    ASSERT_THAT(bytes, IsOk());
    others[quantized] = bytes->others;
  }
  EXPECT_EQ(others[true] - others[false],
            kernels::WeightBytes(kernels::DType::kQ8, config["vocab_size"],
                                 config["hidden_size"]));
}

}  // namespace
}  // namespace switchyard::attention_worker
