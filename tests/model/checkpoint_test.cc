#include "model/checkpoint.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/config.h"
#include "model/weight_names.h"
#include "model/weight_values.h"
#include "tests/model/checkpoint_test_util.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using kernels::WeightView;
using testing::FixturePath;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::MatchesRegex;
using testing::NamedTensor;
using testing::StatusIs;
using testing::TempDir;

void ExpectEqualValues(const WeightView& a, const WeightView& b) {
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.cols, b.cols);
  std::vector<float> a_values(a.rows * a.cols);
  std::vector<float> b_values(b.rows * b.cols);
  WidenWeights(a, a_values.data());
  WidenWeights(b, b_values.data());
  ASSERT_EQ(a_values, b_values);
}

TEST(Checkpoint, ShardedFixture) {
  const auto checkpoint = Open(FixturePath("tiny_a_bf16"));
  EXPECT_EQ(checkpoint->directory(), FixturePath("tiny_a_bf16"));
  EXPECT_EQ(checkpoint->config().num_hidden_layers, 8);
  EXPECT_TRUE(checkpoint->has_mtp());
  EXPECT_EQ(checkpoint->num_expert_layers(), 9);
  EXPECT_TRUE(checkpoint->LayerHasExperts(8));
  const auto conv =
      checkpoint->Find("model.layers.0.linear_attn.conv1d.weight");
  ASSERT_THAT(conv, IsOk());
  EXPECT_EQ(conv->rows, 2 * 2 * 16 + 4 * 16);
  EXPECT_EQ(conv->cols, 4);
  const auto gate =
      checkpoint->Find("model.layers.0.mlp.shared_expert_gate.weight");
  ASSERT_THAT(gate, IsOk());
  EXPECT_EQ(gate->rows, 1);
  EXPECT_EQ(gate->cols, 64);
  const auto norm = checkpoint->FindFloats("model.norm.weight");
  ASSERT_THAT(norm, IsOk());
  EXPECT_EQ(norm->size(), 64u);
  // Defaults without a generation_config.json.
  EXPECT_TRUE(checkpoint->generation_config().do_sample);
}

TEST(Checkpoint, DenseLayer) {
  const auto checkpoint = Open(FixturePath("tiny_b_fp32"));
  EXPECT_FALSE(checkpoint->LayerHasExperts(2));
  EXPECT_TRUE(checkpoint->LayerHasExperts(3));
  EXPECT_THAT(checkpoint->Find("model.layers.2.mlp.gate_proj.weight"), IsOk());
}

TEST(Checkpoint, DemoHasItsGenerationConfig) {
  const auto checkpoint = Open(testing::ModelPath("demo"));
  EXPECT_FALSE(checkpoint->generation_config().eos_token_ids.empty());
}

// Without conversion: the bytes are the same, and what a converter may choose a
// format for is another dtype.
TEST(Checkpoint, Bf16ActivationsOfAHuggingFaceDirectory) {
  const std::string directory = FixturePath("tiny_a_bf16");
  const auto plain = Open(directory);
  auto opened = Checkpoint::Open(directory, Activations::kBFloat16);
  ASSERT_THAT(opened, IsOk());
  const Checkpoint& dot = **opened;
  EXPECT_EQ(dot.expert_dtype(), DType::kBF16Dot);
  EXPECT_NE(dot.fingerprint(), plain->fingerprint());
  EXPECT_THAT(dot.fingerprint(), MatchesRegex("[0-9a-f]{64}"));
  for (const char* name :
       {"model.layers.0.linear_attn.in_proj_qkvz.weight",
        "model.layers.3.self_attn.q_proj.weight", "lm_head.weight"}) {
    const WeightView view = dot.Find(name).value();
    EXPECT_EQ(view.dtype, DType::kBF16Dot) << name;
    ExpectEqualValues(view, plain->Find(name).value());
  }
  for (const char* name :
       {kEmbeddingName, "model.norm.weight", "model.layers.0.mlp.gate.weight",
        "model.layers.0.linear_attn.in_proj_ba.weight"}) {
    EXPECT_EQ(dot.Find(name).value().dtype, plain->Find(name).value().dtype)
        << name;
  }
  const ExpertWeights expert = dot.FindExpert(0, 1).value();
  EXPECT_EQ(expert.up_proj.dtype, DType::kBF16Dot);
  ExpectEqualValues(expert.up_proj, plain->FindExpert(0, 1).value().up_proj);
}

TEST(Checkpoint, Bf16ActivationsNeedBf16Weights) {
  EXPECT_THAT(
      Checkpoint::Open(FixturePath("tiny_b_fp32"), Activations::kBFloat16),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("has no BF16 matrix")));
  EXPECT_THAT(ParseActivations("float16"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("--activations is 'float16'")));
}

TEST(Checkpoint, ExpertsAreTheirTensors) {
  for (const char* name : {"tiny_a_bf16", "tiny_b_fp32"}) {
    const auto checkpoint = Open(FixturePath(name));
    const ModelConfig& config = checkpoint->config();
    for (int layer = 0; layer < checkpoint->num_expert_layers(); ++layer) {
      if (!checkpoint->LayerHasExperts(layer)) continue;
      const std::string prefix =
          layer == config.num_hidden_layers
              ? "mtp.layers.0.mlp.experts."
              : absl::StrCat("model.layers.", layer, ".mlp.experts.");
      for (int e = 0; e < config.num_experts; ++e) {
        const auto expert = checkpoint->FindExpert(layer, e);
        ASSERT_THAT(expert, IsOk());
        const std::pair<const char*, const WeightView*> parts[] = {
            {".gate_proj.weight", &expert->gate_proj},
            {".up_proj.weight", &expert->up_proj},
            {".down_proj.weight", &expert->down_proj}};
        for (const auto& [suffix, view] : parts) {
          const auto tensor = checkpoint->Find(absl::StrCat(prefix, e, suffix));
          ASSERT_THAT(tensor, IsOk());
          EXPECT_EQ(view->data, tensor->data);
        }
        EXPECT_EQ(expert->gate_proj.rows, config.moe_intermediate_size);
        EXPECT_EQ(expert->gate_proj.cols, config.hidden_size);
        EXPECT_EQ(expert->down_proj.rows, config.hidden_size);
        EXPECT_EQ(expert->down_proj.cols, config.moe_intermediate_size);
      }
    }
  }
}

// The same weights in every form: other shards, one file, fused experts. All
// have one fingerprint, and the fused experts' values are the separate ones'.
TEST(Checkpoint, OtherFormsOfTheSameWeights) {
  for (const char* name : {"tiny_a_bf16", "tiny_a_yarn", "tiny_b_fp32"}) {
    SCOPED_TRACE(name);
    const std::string source = FixturePath(name);
    const auto original = Open(source);
    EXPECT_THAT(original->fingerprint(), MatchesRegex("[0-9a-f]{64}"));
    EXPECT_EQ(Open(source)->fingerprint(), original->fingerprint());
    std::vector<NamedTensor> tensors = Tensors(source);
    for (const int shards : {1, 3, 7}) {
      TempDir dir;
      ASSERT_THAT(testing::WriteCheckpoint(dir.path(), ConfigOf(source),
                                           tensors, shards),
                  IsOk());
      EXPECT_EQ(Open(dir.path())->fingerprint(), original->fingerprint())
          << shards << " shards";
    }
    std::reverse(tensors.begin(), tensors.end());
    TempDir dir;
    ASSERT_THAT(testing::WriteCheckpoint(
                    dir.path(), ConfigOf(source),
                    testing::FuseExperts(original->config(), tensors), 2),
                IsOk());
    const auto fused = Open(dir.path());
    EXPECT_EQ(fused->fingerprint(), original->fingerprint());
    EXPECT_THAT(fused->Find("model.layers.0.mlp.experts.gate_up_proj"), IsOk());
    for (int layer = 0; layer < original->num_expert_layers(); ++layer) {
      if (!original->LayerHasExperts(layer)) continue;
      for (int e = 0; e < original->config().num_experts; ++e) {
        const auto a = original->FindExpert(layer, e);
        const auto b = fused->FindExpert(layer, e);
        ASSERT_THAT(a, IsOk());
        ASSERT_THAT(b, IsOk());
        ExpectEqualValues(a->gate_proj, b->gate_proj);
        ExpectEqualValues(a->up_proj, b->up_proj);
        ExpectEqualValues(a->down_proj, b->down_proj);
      }
    }
  }
}

TEST(Checkpoint, DTypesAreReadTensorByTensor) {
  const std::string source = FixturePath("tiny_a_bf16");
  const auto original = Open(source);
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    std::vector<NamedTensor> tensors = Tensors(source);
    for (NamedTensor& tensor : tensors) tensor = ConvertTensor(tensor, dtype);
    TempDir dir;
    ASSERT_THAT(testing::WriteCheckpoint(dir.path(), ConfigOf(source), tensors),
                IsOk());
    const auto converted = Open(dir.path());
    EXPECT_NE(converted->fingerprint(), original->fingerprint());
    for (const NamedTensor& tensor : tensors) {
      const auto a = original->FindFloats(tensor.name);
      const auto b = converted->FindFloats(tensor.name);
      ASSERT_THAT(a, IsOk());
      ASSERT_THAT(b, IsOk());
      for (size_t i = 0; i < a->size(); ++i) {
        // bf16 has more exponent than f16: below 2^-14 f16 loses bits.
        ASSERT_NEAR((*a)[i], (*b)[i], dtype == DType::kF32 ? 0 : 0x1p-25)
            << tensor.name;
      }
    }
  }
}

TEST(Checkpoint, TiedHead) {
  TempDir dir;
  testing::RandomCheckpointOptions options;
  options.config_json =
      Changed(options.config_json, R"({"tie_word_embeddings": true})");
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.path()), IsOk());
  const auto checkpoint = Open(dir.path());
  const auto head = checkpoint->Find(kLmHeadName);
  const auto embedding = checkpoint->Find(kEmbeddingName);
  ASSERT_THAT(head, IsOk());
  ASSERT_THAT(embedding, IsOk());
  EXPECT_EQ(head->data, embedding->data);
  EXPECT_EQ(head->rows, 128);

  // A copy in the file does not count.
  std::vector<NamedTensor> tensors = Tensors(dir.path());
  NamedTensor copy = tensors.front();
  copy.name = kLmHeadName;
  tensors.push_back(copy);
  ASSERT_THAT(
      testing::WriteCheckpoint(dir.path(), options.config_json, tensors),
      IsOk());
  const auto with_copy = Open(dir.path());
  EXPECT_EQ(with_copy->Find(kLmHeadName)->data,
            with_copy->Find(kEmbeddingName)->data);
  EXPECT_EQ(with_copy->fingerprint(), checkpoint->fingerprint());
}

TEST(Checkpoint, WithoutMtp) {
  TempDir dir;
  testing::RandomCheckpointOptions options;
  options.with_mtp = false;
  // What config.json says of it does not count.
  options.config_json =
      Changed(options.config_json, R"({"num_nextn_predict_layers": 1})");
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.path()), IsOk());
  const auto checkpoint = Open(dir.path());
  EXPECT_FALSE(checkpoint->has_mtp());
  EXPECT_EQ(checkpoint->num_expert_layers(), 4);
}

}  // namespace
}  // namespace switchyard::model
