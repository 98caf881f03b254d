#include "model/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/fingerprint.h"
#include "model/weight_names.h"
#include "model/weight_values.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using kernels::WeightView;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::FixturePath;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::MatchesRegex;
using testing::NamedTensor;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

std::unique_ptr<Checkpoint> Open(const std::string& directory) {
  auto checkpoint = Checkpoint::Open(directory);
  EXPECT_THAT(checkpoint, IsOk());
  return *std::move(checkpoint);
}

std::string ConfigOf(const std::string& directory) {
  const auto text = ReadFile(directory + "/config.json", 1 << 20);
  EXPECT_THAT(text, IsOk());
  return *text;
}

// `config_json` with `changes` laid over it; null removes a key.
std::string Changed(const std::string& config_json,
                    const std::string& changes) {
  Json config = ParseJson(config_json).value();
  const Json changed = ParseJson(changes).value();
  for (const auto& [key, value] : changed.items()) {
    if (value.is_null()) {
      config.erase(key);
    } else {
      config[key] = value;
    }
  }
  return DumpJson(config);
}

std::vector<NamedTensor> Tensors(const std::string& directory) {
  auto tensors = testing::ReadTensors(directory);
  EXPECT_THAT(tensors, IsOk());
  return *std::move(tensors);
}

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

TEST(Checkpoint, ConfigSpellingsAreOneFingerprint) {
  TempDir dir;
  testing::RandomCheckpointOptions options;
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.path()), IsOk());
  const std::string original = Open(dir.path())->fingerprint();
  for (const char* same : {
           R"({"full_attention_interval": null, "layer_types":
               ["linear_attention", "linear_attention", "linear_attention",
                "full_attention"]})",
           R"({"rope_theta": null, "partial_rotary_factor": null,
               "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                                   "partial_rotary_factor": 0.25}})",
           R"({"rope_scaling": {"type": "default"}})",
           R"({"torch_dtype": "float32"})", R"({"eos_token_id": [1, 2]})",
           R"({"max_position_embeddings": 2048})"}) {
    dir.Write("config.json", Changed(options.config_json, same));
    EXPECT_EQ(Open(dir.path())->fingerprint(), original) << same;
  }
  for (const char* other :
       {R"({"rope_theta": 10001})", R"({"partial_rotary_factor": 0.5})",
        R"({"rms_norm_eps": 1e-5})", R"({"num_experts_per_tok": 3})",
        R"({"norm_topk_prob": false})",
        R"({"rope_scaling": {"type": "yarn", "factor": 2}})",
        // The same shapes, other heads.
        R"({"linear_num_key_heads": 1, "linear_key_head_dim": 16})"}) {
    dir.Write("config.json", Changed(options.config_json, other));
    EXPECT_NE(Open(dir.path())->fingerprint(), original) << other;
  }
  // Every value of YaRN counts.
  const char* yarn = R"({"rope_scaling": {"type": "yarn", "factor": 2%s}})";
  std::map<std::string, std::string> seen;
  for (const char* more :
       {"", R"(, "beta_fast": 31)", R"(, "beta_slow": 2)",
        R"(, "truncate": false)", R"(, "attention_factor": 1)",
        R"(, "original_max_position_embeddings": 512)"}) {
    std::string changes = yarn;
    changes.replace(changes.find("%s"), 2, more);
    dir.Write("config.json", Changed(options.config_json, changes));
    const auto [it, added] =
        seen.emplace(Open(dir.path())->fingerprint(), more);
    EXPECT_TRUE(added) << more << " is like " << it->second;
  }
}

// The sample: whole tensors up to 8 KiB; of larger ones the first and last 4
// KiB.
TEST(Checkpoint, AFlippedByteInTheSampleChangesTheFingerprint) {
  TempDir dir;
  testing::RandomCheckpointOptions options;
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.path()), IsOk());
  const std::string original = Open(dir.path())->fingerprint();
  const std::vector<NamedTensor> tensors = Tensors(dir.path());
  const auto fingerprint_with_flip = [&](const std::string& name,
                                         int64_t byte) {
    std::vector<NamedTensor> flipped = tensors;
    for (NamedTensor& tensor : flipped) {
      if (tensor.name != name) continue;
      const size_t at = byte < 0 ? tensor.bytes.size() + byte : byte;
      tensor.bytes[at] ^= 1;
    }
    TempDir other;
    EXPECT_THAT(
        testing::WriteCheckpoint(other.path(), options.config_json, flipped),
        IsOk());
    return Open(other.path())->fingerprint();
  };
  for (const NamedTensor& tensor : tensors) {
    ASSERT_LE(tensor.bytes.size(), 2u * kFingerprintSampleBytes) << tensor.name;
  }
  for (const char* name :
       {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
        "model.layers.1.mlp.experts.7.down_proj.weight",
        "mtp.layers.0.mlp.experts.0.gate_proj.weight",
        "model.layers.0.linear_attn.A_log"}) {
    EXPECT_NE(fingerprint_with_flip(name, 0), original) << name;
    EXPECT_NE(fingerprint_with_flip(name, -1), original) << name;
  }

  std::string bytes(3 * kFingerprintSampleBytes, '\0');
  const auto of_bytes = [&] {
    FingerprintBuilder builder(Open(dir.path())->config());
    builder.Add("w", {bytes.data(), DType::kBF16, 2,
                      static_cast<int64_t>(bytes.size()) / 4});
    return builder.Finish();
  };
  const std::string zeros = of_bytes();
  for (const auto& [byte, sampled] :
       {std::pair(0, true), std::pair(4095, true), std::pair(4096, false),
        std::pair(2 * 4096 - 1, false), std::pair(2 * 4096, true),
        std::pair(3 * 4096 - 1, true)}) {
    bytes[byte] = 1;
    EXPECT_EQ(of_bytes() != zeros, sampled) << byte;
    bytes[byte] = 0;
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

// A random checkpoint in shards, to be broken.
class CheckpointErrors : public ::testing::Test {
 protected:
  CheckpointErrors() {
    options_.num_shards = 2;
    EXPECT_THAT(WriteRandomCheckpoint(options_, dir_.path()), IsOk());
    EXPECT_THAT(Checkpoint::Open(dir_.path()), IsOk());
    tensors_ = Tensors(dir_.path());
  }

  absl::Status OpenStatus() { return Checkpoint::Open(dir_.path()).status(); }
  // Writes tensors_ as one file in place of the shards.
  absl::Status OpenRewritten() {
    EXPECT_THAT(
        testing::WriteCheckpoint(dir_.path(), options_.config_json, tensors_),
        IsOk());
    return OpenStatus();
  }
  NamedTensor& Tensor(const std::string& name) {
    for (NamedTensor& tensor : tensors_) {
      if (tensor.name == name) return tensor;
    }
    ADD_FAILURE() << name;
    return tensors_.front();
  }
  void Remove(const std::string& name) {
    Tensor(name);
    tensors_.erase(std::find_if(
        tensors_.begin(), tensors_.end(),
        [&](const NamedTensor& tensor) { return tensor.name == name; }));
  }
  std::string Index() {
    return ReadFile(dir_.File("model.safetensors.index.json"), 1 << 20).value();
  }

  const std::string second_ = "model-00002-of-00002.safetensors";
  TempDir dir_;
  testing::RandomCheckpointOptions options_;
  std::vector<NamedTensor> tensors_;
};

TEST_F(CheckpointErrors, NoDirectory) {
  EXPECT_THAT(Checkpoint::Open(dir_.File("none")),
              StatusIs(kNotFound, HasSubstr("none")));
  EXPECT_THAT(Checkpoint::Open(dir_.File("config.json")),
              StatusIs(kNotFound, HasSubstr("no such directory")));
}

TEST_F(CheckpointErrors, ConfigFiles) {
  dir_.Write("generation_config.json", R"({"top_p": 7})");
  EXPECT_THAT(OpenStatus(),
              StatusIs(kInvalid, AllOf(HasSubstr("generation_config.json"),
                                       HasSubstr("top_p is 7"))));
  dir_.Write("generation_config.json", R"({"top_p": 0.7})");
  EXPECT_EQ(Open(dir_.path())->generation_config().top_p, 0.7);
  dir_.Write("config.json", R"({"model_type": "llama"})");
  EXPECT_THAT(OpenStatus(), StatusIs(kInvalid, AllOf(HasSubstr("config.json"),
                                                     HasSubstr("llama"))));
  std::filesystem::remove(dir_.File("config.json"));
  EXPECT_THAT(OpenStatus(), StatusIs(kNotFound, HasSubstr("config.json")));
}

TEST_F(CheckpointErrors, NoWeights) {
  std::filesystem::remove(dir_.File("model.safetensors.index.json"));
  EXPECT_THAT(OpenStatus(),
              StatusIs(kNotFound, AllOf(HasSubstr("model.safetensors"),
                                        HasSubstr("index.json"))));
}

TEST_F(CheckpointErrors, MissingShard) {
  std::filesystem::remove(dir_.File(second_));
  EXPECT_THAT(OpenStatus(),
              StatusIs(kNotFound, AllOf(HasSubstr(second_), HasSubstr("index"),
                                        HasSubstr("fetch"))));
}

TEST_F(CheckpointErrors, CutShard) {
  const auto size = std::filesystem::file_size(dir_.File(second_));
  std::filesystem::resize_file(dir_.File(second_), size - 100);
  EXPECT_THAT(OpenStatus(),
              StatusIs(kInvalid, AllOf(HasSubstr(second_), HasSubstr("cut"))));
  std::filesystem::resize_file(dir_.File(second_), 100);
  EXPECT_THAT(OpenStatus(),
              StatusIs(kInvalid, AllOf(HasSubstr(second_), HasSubstr("cut"))));
  std::filesystem::resize_file(dir_.File(second_), 0);
  EXPECT_THAT(OpenStatus(), StatusIs(kInvalid, HasSubstr(second_)));
}

TEST_F(CheckpointErrors, DamagedHeader) {
  std::string bytes = ReadFile(dir_.File(second_), 1 << 26).value();
  bytes[8] = '#';
  dir_.Write(second_, bytes);
  EXPECT_THAT(OpenStatus(), StatusIs(kDataLoss, HasSubstr(second_)));
}

TEST_F(CheckpointErrors, IndexAndShardsDisagree) {
  // The index sends a tensor to the wrong shard.
  Json index = ParseJson(Index()).value();
  const std::string name = tensors_.front().name;
  index["weight_map"][name] = second_;
  dir_.Write("model.safetensors.index.json", DumpJson(index));
  EXPECT_THAT(OpenStatus(),
              StatusIs(kInvalid, AllOf(HasSubstr(second_), HasSubstr(name),
                                       HasSubstr("index"))));
  // It forgets one: the shard has it, but the checkpoint does not.
  index["weight_map"].erase(name);
  dir_.Write("model.safetensors.index.json", DumpJson(index));
  EXPECT_THAT(OpenStatus(), StatusIs(kNotFound, HasSubstr(name)));
}

TEST_F(CheckpointErrors, BadIndex) {
  for (const char* text :
       {"", "{", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {}})",
        R"({"weight_map": {"a": 1}})", R"({"weight_map": {"a": ""}})",
        R"({"weight_map": {"a": "../config.json"}})",
        R"({"weight_map": {"a": ".."}})",
        R"({"weight_map": {"a": "/etc/passwd"}})"}) {
    dir_.Write("model.safetensors.index.json", text);
    EXPECT_THAT(OpenStatus(), StatusIs(kInvalid, HasSubstr("index.json")))
        << text;
  }
}

// Every expected tensor in turn: without it the checkpoint does not open, and
// the message has its name and shape.
TEST_F(CheckpointErrors, EveryTensorIsNeeded) {
  const std::vector<NamedTensor> all = tensors_;
  for (size_t i = 0; i < all.size(); ++i) {
    tensors_ = all;
    tensors_.erase(tensors_.begin() + static_cast<int64_t>(i));
    ASSERT_THAT(OpenRewritten(),
                StatusIs(kNotFound, HasSubstr(absl::StrCat(
                                        "tensor ", all[i].name, " of shape"))));
  }
}

TEST_F(CheckpointErrors, PartsOfAnMtpHeadAreNotOne) {
  Remove("mtp.norm.weight");
  EXPECT_THAT(OpenRewritten(),
              StatusIs(kNotFound, HasSubstr("other mtp.* tensors are there")));
}

TEST_F(CheckpointErrors, FusedExpertsNeedBothTensors) {
  const ModelConfig config = ParseModelConfig(options_.config_json).value();
  tensors_ = testing::FuseExperts(config, tensors_);
  ASSERT_THAT(OpenRewritten(), IsOk());
  Remove("model.layers.2.mlp.experts.down_proj");
  EXPECT_THAT(
      OpenRewritten(),
      StatusIs(kNotFound, HasSubstr("model.layers.2.mlp.experts.down_proj")));
}

TEST_F(CheckpointErrors, WrongShape) {
  NamedTensor& tensor = Tensor("model.layers.3.self_attn.q_proj.weight");
  std::swap(tensor.shape[0], tensor.shape[1]);
  EXPECT_THAT(
      OpenRewritten(),
      StatusIs(kInvalid, AllOf(HasSubstr("self_attn.q_proj.weight"),
                               HasSubstr("[32, 128]"), HasSubstr("[128, 32]"),
                               HasSubstr("model.safetensors"))));
}

TEST_F(CheckpointErrors, WrongDType) {
  // "F16" and "I16" are of one length and size, so the file stays consistent.
  for (NamedTensor& tensor : tensors_) {
    tensor = ConvertTensor(tensor, DType::kF16);
  }
  ASSERT_THAT(OpenRewritten(), IsOk());
  std::string bytes = ReadFile(dir_.File("model.safetensors"), 1 << 26).value();
  const size_t name = bytes.find("\"model.layers.1.mlp.gate.weight\"");
  const size_t dtype = bytes.find("\"F16\"", name);
  bytes.replace(dtype, 5, "\"I16\"");
  dir_.Write("model.safetensors", bytes);
  EXPECT_THAT(
      OpenStatus(),
      StatusIs(kInvalid, AllOf(HasSubstr("model.layers.1.mlp.gate.weight"),
                               HasSubstr("I16"), HasSubstr("convert"))));
}

TEST_F(CheckpointErrors, ExtraTensorsAreIgnored) {
  const std::string original = Open(dir_.path())->fingerprint();
  tensors_.push_back(
      testing::MakeTensor("model.extra", {2}, {1, 2}, DType::kF32));
  ASSERT_THAT(OpenRewritten(), IsOk());
  const auto checkpoint = Open(dir_.path());
  EXPECT_EQ(checkpoint->fingerprint(), original);
  const auto extra = checkpoint->FindFloats("model.extra");
  ASSERT_THAT(extra, IsOk());
  EXPECT_THAT(*extra, ElementsAre(1, 2));
}

TEST_F(CheckpointErrors, FindNamesTheTensor) {
  const auto checkpoint = Open(dir_.path());
  EXPECT_THAT(checkpoint->Find("nothing.weight"),
              StatusIs(kNotFound, HasSubstr("nothing.weight")));
  EXPECT_THAT(checkpoint->FindFloats("nothing.weight"), StatusIs(kNotFound));
}

// The reference's totals for the released models.
TEST(WeightNames, CountsAndParametersOfTheReleasedModels) {
  const auto text =
      ReadFile(FixturePath("configs/config.qwen3-next-80b-a3b.json"), 1 << 20);
  const ModelConfig config = ParseModelConfig(text.value()).value();
  for (const bool with_mtp : {false, true}) {
    for (const ExpertForm form : {ExpertForm::kSeparate, ExpertForm::kFused}) {
      int64_t tensors = 0;
      int64_t parameters = 0;
      const auto count = [&](const std::string&,
                             absl::Span<const int64_t> shape) {
        ++tensors;
        int64_t n = 1;
        for (int64_t size : shape) n *= size;
        parameters += n;
        return absl::OkStatus();
      };
      const int layers = 48 + (with_mtp ? 1 : 0);
      EXPECT_THAT(ForEachNonExpertWeight(config, with_mtp, count), IsOk());
      for (int layer = 0; layer < layers; ++layer) {
        EXPECT_THAT(ForEachExpertWeight(config, layer, form, count), IsOk());
      }
      EXPECT_EQ(parameters, with_mtp ? 81324862720 : 79674391296);
      if (form == ExpertForm::kSeparate) {
        EXPECT_EQ(tensors, with_mtp ? 75944 : 74391);
      } else {
        EXPECT_EQ(tensors, (with_mtp ? 75944 : 74391) - layers * (3 * 512 - 2));
      }
    }
  }
}

// The list holds exactly the fixtures' tensors.
TEST(WeightNames, EqualTheFixtures) {
  for (const char* name : {"tiny_a_bf16", "tiny_a_yarn", "tiny_b_fp32"}) {
    const auto checkpoint = Open(FixturePath(name));
    std::map<std::string, std::vector<int64_t>> expected;
    const auto add = [&](const std::string& tensor,
                         absl::Span<const int64_t> shape) {
      expected.emplace(tensor,
                       std::vector<int64_t>(shape.begin(), shape.end()));
      return absl::OkStatus();
    };
    ASSERT_THAT(ForEachNonExpertWeight(checkpoint->config(), true, add),
                IsOk());
    for (int layer = 0; layer < checkpoint->num_expert_layers(); ++layer) {
      if (!checkpoint->LayerHasExperts(layer)) continue;
      ASSERT_THAT(ForEachExpertWeight(checkpoint->config(), layer,
                                      ExpertForm::kSeparate, add),
                  IsOk());
    }
    std::map<std::string, std::vector<int64_t>> found;
    for (const NamedTensor& tensor : Tensors(FixturePath(name))) {
      found[tensor.name] = tensor.shape;
    }
    EXPECT_EQ(found, expected) << name;
  }
}

}  // namespace
}  // namespace switchyard::model
