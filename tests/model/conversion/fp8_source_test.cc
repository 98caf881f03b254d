#include "model/conversion/fp8_source.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/compute_pool.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "model/conversion/container.h"
#include "model/conversion/convert.h"
#include "model/weight_names.h"
#include "model/weight_values.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::NamedTensor;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr int64_t kMaxBytes = int64_t{1} << 26;  // of a file here

// The OCP specification's own examples.
TEST(E4M3, Values) {
  EXPECT_EQ(FloatOfE4M3(0x00), 0.0f);
  EXPECT_EQ(FloatOfE4M3(0x01), 0x1p-9f);    // the smallest
  EXPECT_EQ(FloatOfE4M3(0x07), 0x1.cp-7f);  // the largest subnormal
  EXPECT_EQ(FloatOfE4M3(0x08), 0x1p-6f);
  EXPECT_EQ(FloatOfE4M3(0x38), 1.0f);
  EXPECT_EQ(FloatOfE4M3(0x39), 1.125f);
  EXPECT_EQ(FloatOfE4M3(0x7E), 448.0f);  // the largest
  EXPECT_EQ(FloatOfE4M3(0xC0), -2.0f);
  EXPECT_TRUE(std::signbit(FloatOfE4M3(0x80)));
  EXPECT_TRUE(std::isnan(FloatOfE4M3(0x7F)));
  EXPECT_TRUE(std::isnan(FloatOfE4M3(0xFF)));
  std::set<float> values;
  for (int bits = 0; bits < 0x7F; ++bits) {
    const float value = FloatOfE4M3(static_cast<uint8_t>(bits));
    EXPECT_TRUE(values.empty() || value > *values.rbegin());
    values.insert(value);
    EXPECT_EQ(FloatOfE4M3(static_cast<uint8_t>(bits | 0x80)), -value);
  }
}

// Matrices of more than one block, and of parts of one.
std::string Config(bool quantized) {
  Json config = ParseJson(testing::SmallConfigJson()).value();
  config["hidden_size"] = 160;
  config["moe_intermediate_size"] = 144;
  config["num_hidden_layers"] = 2;
  config["full_attention_interval"] = 2;
  config["num_experts"] = 3;
  config.erase("layer_types");
  if (quantized) {
    config["quantization_config"] = {{"activation_scheme", "dynamic"},
                                     {"fmt", "e4m3"},
                                     {"quant_method", "fp8"},
                                     {"weight_block_size", {128, 128}}};
  }
  return DumpJson(config);
}

struct Fp8Model {
  std::vector<ContainerTensor> tensors;
  std::vector<std::string> contents;

  void Add(const std::string& name, const std::string& dtype,
           const std::vector<int64_t>& shape, const std::string& bytes) {
    tensors.push_back({name, dtype, shape, static_cast<int64_t>(bytes.size())});
    contents.push_back(bytes);
  }
  // Tensors [begin, end) as a file.
  void WriteFile(const std::string& path, size_t begin, size_t end) const {
    const ContainerPlan plan =
        PlanContainer({tensors.begin() + begin, tensors.begin() + end});
    std::string file = plan.header;
    file.resize(plan.file_bytes);
    for (size_t i = begin; i < end; ++i) {
      std::memcpy(file.data() + plan.tensors[i - begin].offset,
                  contents[i].data(), contents[i].size());
    }
    ASSERT_THAT(WriteWholeFile(path, file), IsOk());
  }
  void Write(const std::string& directory, const std::string& config) const {
    std::filesystem::create_directories(directory);
    WriteFile(directory + "/model.safetensors", 0, tensors.size());
    ASSERT_THAT(WriteWholeFile(directory + "/config.json", config), IsOk());
  }
  // As published: names in order, cut wherever a file is full, and an index.
  // Returns how many matrices have their scales in another file.
  int WriteShards(const std::string& directory, const std::string& config,
                  int num_shards) const {
    std::filesystem::create_directories(directory);
    Json weight_map = Json::object();
    int64_t total_bytes = 0;
    int apart = 0;
    for (int shard = 0; shard < num_shards; ++shard) {
      const size_t begin = tensors.size() * shard / num_shards;
      const size_t end = tensors.size() * (shard + 1) / num_shards;
      const std::string name = absl::StrFormat("model-%05d-of-%05d.safetensors",
                                               shard + 1, num_shards);
      WriteFile(absl::StrCat(directory, "/", name), begin, end);
      for (size_t i = begin; i < end; ++i) {
        weight_map[tensors[i].name] = name;
        total_bytes += static_cast<int64_t>(contents[i].size());
      }
      apart += absl::EndsWith(tensors[begin].name, "_scale_inv");
    }
    const Json index = {{"metadata", {{"total_size", total_bytes}}},
                        {"weight_map", std::move(weight_map)}};
    EXPECT_THAT(WriteWholeFile(directory + "/model.safetensors.index.json",
                               DumpJson(index)),
                IsOk());
    EXPECT_THAT(WriteWholeFile(directory + "/config.json", config), IsOk());
    return apart;
  }
};

bool IsProjection(const std::string& name) {
  return absl::StrContains(name, "_proj.weight") ||
         absl::StrContains(name, "in_proj_qkvz.weight");
}

// A model whose projections are FP8, and the same model in F32.
class Fp8Conversion : public ::testing::Test {
 protected:
  Fp8Conversion() {
    EXPECT_THAT(testing::WriteRandomCheckpoint({.config_json = Config(false)},
                                               dir_.File("base")),
                IsOk());
    uint32_t random = 1;
    const auto next = [&random] {
      random = random * 1664525 + 1013904223;
      return random >> 16;
    };
    const std::vector<NamedTensor> base =
        testing::ReadTensors(dir_.File("base")).value();
    for (const NamedTensor& tensor : base) {
      if (!IsProjection(tensor.name)) {
        fp8_.Add(tensor.name, "BF16", tensor.shape, tensor.bytes);
        plain_.push_back(ConvertTensor(tensor, DType::kF32));
        continue;
      }
      const int64_t rows = tensor.shape[0];
      const int64_t cols = tensor.shape[1];
      const int64_t row_blocks = (rows + 127) / 128;
      const int64_t col_blocks = (cols + 127) / 128;
      std::string bytes(rows * cols, 0);
      for (char& byte : bytes) {
        do byte = static_cast<char>(next());
        while ((byte & 0x7F) == 0x7F);
      }
      std::vector<float> scales(row_blocks * col_blocks);
      for (float& scale : scales) {
        scale = static_cast<float>(1 + next() % 200) * 0x1p-14f;
      }
      const NamedTensor scale =
          testing::MakeTensor("", {row_blocks, col_blocks}, scales,
                              next() % 2 == 0 ? DType::kBF16 : DType::kF32);
      fp8_.Add(tensor.name, "F8_E4M3", tensor.shape, bytes);
      fp8_.Add(tensor.name + "_scale_inv",
               scale.dtype == DType::kBF16 ? "BF16" : "F32", scale.shape,
               scale.bytes);
      std::vector<float> values(rows * cols);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          values[r * cols + c] =
              FloatOfE4M3(static_cast<uint8_t>(bytes[r * cols + c])) *
              scales[r / 128 * col_blocks + c / 128];
        }
      }
      plain_.push_back(
          testing::MakeTensor(tensor.name, tensor.shape, values, DType::kF32));
    }
    fp8_.Write(dir_.File("fp8"), Config(true));
    EXPECT_THAT(
        testing::WriteCheckpoint(dir_.File("plain"), Config(false), plain_),
        IsOk());
  }

  absl::Status Convert(const std::string& from, const std::string& to,
                       const char* format) {
    InlinePool pool;
    return ConvertCheckpoint({.model_dir = dir_.File(from),
                              .out_dir = dir_.File(to),
                              .formats = ParseWeightFormats(format).value(),
                              .pool = &pool,
                              .progress = {}});
  }

  TempDir dir_;
  Fp8Model fp8_;
  std::vector<NamedTensor> plain_;
};

TEST_F(Fp8Conversion, IsThatOfItsValues) {
  EXPECT_THAT(Checkpoint::Open(dir_.File("fp8")),
              StatusIs(kInvalid, AllOf(HasSubstr("quantization_config"),
                                       HasSubstr("switchyard convert"))));
  for (const char* format : {"q8", "q4", "bf16", "bf16dot"}) {
    SCOPED_TRACE(format);
    const std::string a = absl::StrCat("a-", format);
    const std::string b = absl::StrCat("b-", format);
    ASSERT_THAT(Convert("fp8", a, format), IsOk());
    ASSERT_THAT(Convert("plain", b, format), IsOk());
    const auto from_fp8 = Checkpoint::Open(dir_.File(a));
    const auto from_plain = Checkpoint::Open(dir_.File(b));
    ASSERT_THAT(from_fp8, IsOk());
    ASSERT_THAT(from_plain, IsOk());
    const Checkpoint& x = **from_fp8;
    const Checkpoint& y = **from_plain;
    EXPECT_EQ(x.expert_dtype(), y.expert_dtype());
    EXPECT_THAT(
        ForEachNonExpertWeight(
            x.config(), true,
            [&](const std::string& name, absl::Span<const int64_t>) {
              EXPECT_EQ(x.FindFloats(name).value(), y.FindFloats(name).value())
                  << name;
              return absl::OkStatus();
            }),
        IsOk());
    for (int layer = 0; layer < x.num_expert_layers(); ++layer) {
      for (int e = 0; e < x.config().num_experts; ++e) {
        const ExpertWeights p = x.FindExpert(layer, e).value();
        const ExpertWeights q = y.FindExpert(layer, e).value();
        ASSERT_EQ(p.down_proj.cols, 144);
        EXPECT_EQ(std::memcmp(p.gate_proj.data, q.gate_proj.data,
                              WeightBytes(p.gate_proj)),
                  0);
        EXPECT_EQ(
            std::memcmp(p.up_proj.data, q.up_proj.data, WeightBytes(p.up_proj)),
            0);
        EXPECT_EQ(std::memcmp(p.down_proj.data, q.down_proj.data,
                              WeightBytes(p.down_proj)),
                  0);
      }
    }
  }
  // "source" of FP8 is bf16: what is not FP8 stays.
  ASSERT_THAT(Convert("fp8", "source", "source"), IsOk());
  EXPECT_EQ((*Checkpoint::Open(dir_.File("source")))->expert_dtype(),
            DType::kBF16);
}

// The public checkpoints' files, but for their size: 41 shards, and a list of
// what was not quantised.
TEST_F(Fp8Conversion, ShardsAsPublished) {
  Json config = ParseJson(Config(true)).value();
  config["quantization_config"]["modules_to_not_convert"] = {
      "lm_head", "model.layers.0.linear_attn.in_proj_ba",
      "model.layers.0.mlp.gate", "model.layers.0.mlp.shared_expert_gate"};
  EXPECT_GT(fp8_.WriteShards(dir_.File("shards"), DumpJson(config), 41), 0);
  ASSERT_THAT(Convert("fp8", "whole", "q4"), IsOk());
  ASSERT_THAT(Convert("shards", "published", "q4"), IsOk());
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(dir_.File("whole"))) {
    const std::string name = entry.path().filename().string();
    if (!absl::EndsWith(name, ".safetensors")) continue;
    ++files;
    const auto whole = ReadFile(entry.path().string(), kMaxBytes);
    const auto published =
        ReadFile(absl::StrCat(dir_.File("published"), "/", name), kMaxBytes);
    ASSERT_THAT(whole, IsOk());
    ASSERT_THAT(published, IsOk());
    EXPECT_EQ(*whole == *published, true) << name;
  }
  EXPECT_EQ(files, 4);  // dense, two layers' experts, the MTP head's
  EXPECT_THAT(Checkpoint::Open(dir_.File("published")), IsOk());
  // A shard that was not fetched.
  const std::string missing = "model-00017-of-00041.safetensors";
  std::filesystem::remove(absl::StrCat(dir_.File("shards"), "/", missing));
  EXPECT_THAT(Convert("shards", "cut", "q4"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(missing)));
}

TEST_F(Fp8Conversion, Refusals) {
  const char* name = "model.layers.0.mlp.experts.1.up_proj.weight";
  const auto status_without = [&](const std::string& what) {
    Fp8Model model;
    for (size_t i = 0; i < fp8_.tensors.size(); ++i) {
      if (fp8_.tensors[i].name == what) continue;
      model.Add(fp8_.tensors[i].name, fp8_.tensors[i].dtype,
                fp8_.tensors[i].shape, fp8_.contents[i]);
    }
    model.Write(dir_.File("bad"), Config(true));
    return OpenWeightSource(dir_.File("bad")).status();
  };
  EXPECT_THAT(status_without(name),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(name)));
  EXPECT_THAT(status_without(absl::StrCat(name, "_scale_inv")),
              StatusIs(kInvalid, AllOf(HasSubstr(name), HasSubstr("scales"))));
  Fp8Model model = fp8_;
  for (ContainerTensor& tensor : model.tensors) {
    if (tensor.name == absl::StrCat(name, "_scale_inv")) {
      tensor.shape = {4, 1};  // as many, laid out otherwise
    }
  }
  model.Write(dir_.File("bad"), Config(true));
  EXPECT_THAT(OpenWeightSource(dir_.File("bad")),
              StatusIs(kInvalid, HasSubstr("is [2, 2]")));
  for (const auto& [key, value] :
       {std::pair<std::string, Json>("weight_block_size", Json({64, 64})),
        {"weight_block_size", Json()},
        {"quant_method", "gptq"},
        {"fmt", "e5m2"}}) {
    Json config = ParseJson(Config(true)).value();
    config["quantization_config"][key] = value;
    fp8_.Write(dir_.File("bad"), DumpJson(config));
    EXPECT_THAT(OpenWeightSource(dir_.File("bad")),
                StatusIs(kInvalid, HasSubstr(key)));
  }
  // FP8 tensors, but no word of it.
  fp8_.Write(dir_.File("bad"), Config(false));
  EXPECT_THAT(OpenWeightSource(dir_.File("bad")),
              StatusIs(kInvalid, HasSubstr("F8_E4M3")));
}

}  // namespace
}  // namespace switchyard::model
