// The product against the twin, on checkpoints that the fixtures do not cover.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/layers/test_model.h"
#include "tests/reference/reference_model.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::Rows;

// Of the largest logit (about 11). Random weights amplify rounding more than
// the fixtures' chosen inputs do (measured: 1.6e-5); a wrong rule moves logits
// by 5e-2 of the largest and more.
constexpr double kTolerance = 5e-5;

std::vector<float> Flatten(const Rows& rows) {
  std::vector<float> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return flat;
}

struct Variant {
  const char* name;
  // Keys of config.json that differ from SmallConfigJson().
  const char* changes;
  kernels::DType dtype = kernels::DType::kF32;
  bool fused_experts = false;
};

class ReferenceTest : public ::testing::TestWithParam<Variant> {};

INSTANTIATE_TEST_SUITE_P(
    Variants, ReferenceTest,
    ::testing::Values(
        Variant{"plain", "{}"},
        Variant{"bf16_fused", "{}", kernels::DType::kBF16, true},
        Variant{"tied", R"({"tie_word_embeddings": true})"},
        Variant{"not_normalised", R"({"norm_topk_prob": false})"},
        Variant{"one_expert_a_token", R"({"num_experts_per_tok": 1})"},
        Variant{"all_experts", R"({"num_experts_per_tok": 8})"},
        Variant{"two_taps", R"({"linear_conv_kernel_dim": 2})"},
        Variant{"dense_layers", R"({"decoder_sparse_step": 2})"},
        Variant{"wide_values", R"({"linear_value_head_dim": 83})"},
        Variant{"wide_heads", R"({"head_dim": 72})"},
        Variant{"one_head_each",
                R"({"num_key_value_heads": 1, "num_attention_heads": 1})"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(ReferenceTest, SameLogitsStatesAndDrafts) {
  auto json = ParseJson(switchyard::testing::SmallConfigJson());
  ASSERT_THAT(json, IsOk());
  const auto changes = ParseJson(GetParam().changes);
  ASSERT_THAT(changes, IsOk());
  for (const auto& [key, value] : changes->items()) (*json)[key] = value;
  const switchyard::testing::TempDir directory;
  ASSERT_THAT(switchyard::testing::WriteRandomCheckpoint(
                  {.config_json = DumpJson(*json),
                   .dtype = GetParam().dtype,
                   .fused_experts = GetParam().fused_experts},
                  directory.path()),
              IsOk());

  TestModel model(directory.path(), {.threads = 2, .probe = true});
  const std::vector<int32_t> tokens =
      SomeTokens(40, model.config().vocab_size, 7);
  const auto [logits, state] = model.RunInPieces(tokens, {{25, 1}});
  const switchyard::testing::ReferenceModel reference(&model.checkpoint());
  const auto run = reference.Run(tokens);
  // A near-tie of the gate would show as a wrong expert, not as a bad result.
  for (int i = 0; i < model.config().num_hidden_layers; ++i) {
    if (!model.config().is_moe[i]) continue;
    std::vector<float> chosen;
    for (const auto& row : run.gate[i].experts) {
      chosen.insert(chosen.end(), row.begin(), row.end());
    }
    ASSERT_TRUE(SameBits(model.probed[{"gate_indices", i}], chosen)) << i;
    EXPECT_LE(MaxDifference(model.probed[{"gate_weights", i}],
                            Flatten(run.gate[i].weights)),
              1e-4);
  }
  const std::vector<float> expected = Flatten(run.logits);
  EXPECT_LE(MaxDifference(logits, expected), kTolerance * MaxAbs(expected));
  EXPECT_GT(MaxAbs(expected), 1);  // there is something to compare
  for (size_t i = 0; i < run.linear.size(); ++i) {
    std::vector<float> recurrent;
    for (const Rows& head : run.linear[i].recurrent) {
      const std::vector<float> flat = Flatten(head);
      recurrent.insert(recurrent.end(), flat.begin(), flat.end());
    }
    EXPECT_LE(MaxDifference(
                  absl::MakeConstSpan(state->recurrent(i), recurrent.size()),
                  recurrent),
              1e-4);
  }

  const int64_t hidden_size = model.config().hidden_size;
  const std::vector<float> hidden = Flatten(run.final_hidden);
  const auto mtp_state = model.NewState();
  const MtpChunk pairs{
      .state = mtp_state.get(),
      .hidden = absl::MakeConstSpan(hidden).first(39 * hidden_size),
      .next_tokens = absl::MakeConstSpan(tokens).last(39),
      .logits = LogitsOf::kEveryToken};
  const MtpResult drafted = model.mtp().Step({&pairs, 1})[0];
  ASSERT_THAT(drafted.status, IsOk());
  const auto mtp_run = reference.RunMtp(
      Rows(run.final_hidden.begin(), run.final_hidden.end() - 1),
      absl::MakeConstSpan(tokens).last(39));
  const std::vector<float> expected_drafts = Flatten(mtp_run.logits);
  EXPECT_LE(MaxDifference(drafted.logits, expected_drafts),
            kTolerance * MaxAbs(expected_drafts));
}

}  // namespace
}  // namespace switchyard::attention_worker
