// Checkpoints that are incomplete or damaged: what Open() says of them.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "model/config.h"
#include "tests/model/checkpoint_test_util.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::NamedTensor;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

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

}  // namespace
}  // namespace switchyard::model
