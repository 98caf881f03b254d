#include "model/conversion/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/compute_pool.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quantized.h"
#include "kernels/weight_codec.h"
#include "model/checkpoint.h"
#include "model/conversion/verify.h"
#include "model/expert_blob.h"
#include "model/manifest.h"
#include "model/weight_names.h"
#include "model/weight_values.h"
#include "tests/model/conversion/conversion_case.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using kernels::WeightView;
using ::testing::AllOf;
using testing::FixturePath;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::MatchesRegex;
using testing::NamedTensor;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// What a float is in bf16 or f16 is TensorValues' and MakeTensor's business.
std::string ExpectedBytes(const WeightView& source, DType dtype) {
  std::vector<float> values(source.rows * source.cols);
  WidenWeights(source, values.data());
  if (!kernels::IsQuantized(dtype)) {
    return testing::MakeTensor("", {source.rows, source.cols}, values,
                               FileDType(dtype))
        .bytes;
  }
  std::string bytes(kernels::WeightBytes(dtype, source.rows, source.cols), 0);
  char* panel = bytes.data();
  for (int64_t row = 0; row < source.rows; row += kernels::kPanelRows) {
    EXPECT_TRUE(kernels::QuantizePanel(
        dtype, values.data() + row * source.cols,
        std::min<int64_t>(kernels::kPanelRows, source.rows - row), source.cols,
        panel));
    panel += kernels::PanelBytes(dtype, source.cols);
  }
  return bytes;
}

void ExpectConverted(const WeightView& source, const WeightView& converted,
                     DType dtype, const std::string& name) {
  ASSERT_EQ(converted.rows, source.rows) << name;
  ASSERT_EQ(converted.cols, source.cols) << name;
  ASSERT_EQ(converted.dtype, dtype) << name;
  const std::string expected = ExpectedBytes(source, dtype);
  ASSERT_EQ(WeightBytes(converted), static_cast<int64_t>(expected.size()));
  EXPECT_EQ(std::memcmp(converted.data, expected.data(), expected.size()), 0)
      << name;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(converted.data) % 64, 0u) << name;
}

DType Stored(WeightFormat format, DType source) {
  switch (format) {
    case WeightFormat::kSource:
      return source;
    case WeightFormat::kBF16:
      return DType::kBF16;
    case WeightFormat::kQ8:
      return DType::kQ8;
    case WeightFormat::kQ4:
      return DType::kQ4;
    case WeightFormat::kBF16Dot:
      return DType::kBF16Dot;
  }
  return source;
}

// The kinds, by hand: what is not here keeps its dtype.
bool IsDense(const std::string& name) {
  for (const char* part :
       {"q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkvz", "out_proj",
        "gate_proj", "up_proj", "down_proj", "mtp.fc"}) {
    if (absl::StrContains(name, absl::StrCat(part, ".weight"))) return true;
  }
  return false;
}

void ExpectRoundTrip(const std::string& model_dir,
                     const WeightFormats& formats) {
  SCOPED_TRACE(absl::StrCat(model_dir, ": ", DescribeFormats(formats)));
  TempDir dir;
  const std::unique_ptr<ComputePool> pool = NewThreadPool(3, "convert");
  std::vector<std::pair<int64_t, int64_t>> progress;
  ASSERT_THAT(Convert(model_dir, dir.File("out"), formats, pool.get(),
                      [&](int64_t done, int64_t total) {
                        progress.emplace_back(done, total);
                      }),
              IsOk());
  ASSERT_FALSE(progress.empty());
  EXPECT_EQ(progress.front().first, 0);
  EXPECT_EQ(progress.back().first, progress.back().second);
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));

  const auto source = Open(model_dir);
  const auto converted = Open(dir.File("out"));
  EXPECT_EQ(converted->has_mtp(), source->has_mtp());
  EXPECT_TRUE(converted->has_checksums());
  EXPECT_FALSE(source->has_checksums());
  EXPECT_THAT(converted->fingerprint(), MatchesRegex("[0-9a-f]{64}"));
  EXPECT_NE(converted->fingerprint(), source->fingerprint());
  EXPECT_EQ(converted->expert_dtype(),
            Stored(formats.experts, source->expert_dtype()));
  EXPECT_THAT(ForEachNonExpertWeight(
                  source->config(), source->has_mtp(),
                  [&](const std::string& name,
                      absl::Span<const int64_t>) -> absl::Status {
                    const WeightView from = source->Find(name).value();
                    const auto to = converted->Find(name);
                    EXPECT_THAT(to, IsOk());
                    EXPECT_THAT(converted->VerifyTensor(name), IsOk());
                    if (!to.ok()) return to.status();
                    DType dtype = from.dtype;
                    if (IsDense(name)) dtype = Stored(formats.dense, dtype);
                    if (name == kLmHeadName)
                      dtype = Stored(formats.lm_head, dtype);
                    ExpectConverted(from, *to, dtype, name);
                    return absl::OkStatus();
                  }),
              IsOk());
  for (int layer = 0; layer < source->num_expert_layers(); ++layer) {
    ASSERT_EQ(converted->LayerHasExperts(layer),
              source->LayerHasExperts(layer));
    if (!source->LayerHasExperts(layer)) continue;
    for (int e = 0; e < source->config().num_experts; ++e) {
      const ExpertWeights from = source->FindExpert(layer, e).value();
      const ExpertWeights to = converted->FindExpert(layer, e).value();
      const DType dtype = converted->expert_dtype();
      const std::string name = absl::StrCat(layer, "/", e);
      ExpectConverted(from.gate_proj, to.gate_proj, dtype, name);
      ExpectConverted(from.up_proj, to.up_proj, dtype, name);
      ExpectConverted(from.down_proj, to.down_proj, dtype, name);
      // One piece.
      const auto* begin = static_cast<const uint8_t*>(to.gate_proj.data);
      EXPECT_EQ(static_cast<const uint8_t*>(to.down_proj.data) - begin,
                ExpertBlobLayout(source->config(), dtype).down_offset);
      EXPECT_THAT(converted->VerifyExpert(layer, e), IsOk());
    }
  }
}

TEST(Convert, RoundTripOfEveryFormat) {
  for (const char* name : {"tiny_a_bf16", "tiny_b_fp32"}) {
    for (const char* format :
         {"q8", "q4", "q4-q8", "bf16", "bf16dot", "source"}) {
      ExpectRoundTrip(FixturePath(name), ParseWeightFormats(format).value());
    }
  }
  ExpectRoundTrip(
      FixturePath("tiny_a_yarn"),
      {WeightFormat::kSource, WeightFormat::kQ4, WeightFormat::kBF16});
  ExpectRoundTrip(testing::ModelPath("demo"),
                  ParseWeightFormats("q4-q8").value());
}

// What its activations are, a converted checkpoint says itself.
TEST(Convert, NoFlagChangesActivations) {
  TempDir dir;
  ASSERT_THAT(Convert(FixturePath("tiny_a_bf16"), dir.File("out"), "bf16dot"),
              IsOk());
  EXPECT_THAT(Checkpoint::Open(dir.File("out"), Activations::kBFloat16),
              StatusIs(kInvalid, HasSubstr("leave --activations out")));
}

TEST(Convert, CompanionsAreCopied) {
  TempDir dir;
  ASSERT_THAT(Convert(testing::ModelPath("demo"), dir.File("out"), "q8"),
              IsOk());
  const auto out = Contents(dir.File("out"));
  for (const char* name : {"config.json", "generation_config.json",
                           "tokenizer.json", "tokenizer_config.json",
                           "vocab.json", "merges.txt", "chat_template.jinja"}) {
    ASSERT_TRUE(out.count(name)) << name;
    EXPECT_EQ(
        out.at(name),
        ReadFile(absl::StrCat(testing::ModelPath("demo"), "/", name), 1 << 30)
            .value());
  }
  EXPECT_EQ(out.count("eval.jsonl"), 0u);
  EXPECT_EQ(out.count(kJournalFile), 0u);
}

TEST(Convert, TheSameFilesWithAnyNumberOfThreads) {
  TempDir dir;
  const std::string model = FixturePath("tiny_a_bf16");
  ASSERT_THAT(Convert(model, dir.File("one"), "q4-q8"), IsOk());
  const std::unique_ptr<ComputePool> pool = NewThreadPool(5, "convert");
  ASSERT_THAT(Convert(model, dir.File("five"),
                      ParseWeightFormats("q4-q8").value(), pool.get()),
              IsOk());
  EXPECT_EQ(Contents(dir.File("one")), Contents(dir.File("five")));
}

TEST(Convert, FingerprintNamesSourceAndFormats) {
  TempDir dir;
  std::map<std::string, std::string> seen;
  for (const char* format :
       {"q8", "q4", "q4-q8", "bf16", "bf16dot", "source"}) {
    ASSERT_THAT(Convert(FixturePath("tiny_b_fp32"), dir.File(format), format),
                IsOk());
    const std::string fingerprint = Open(dir.File(format))->fingerprint();
    EXPECT_TRUE(seen.emplace(fingerprint, format).second) << format;
  }
  // What config.json says of arithmetic counts here too.
  Json config =
      ParseJson(ReadFile(dir.File("q8/config.json"), 1 << 20).value()).value();
  config["rms_norm_eps"] = 1e-4;
  dir.Write("q8/config.json", DumpJson(config));
  EXPECT_EQ(seen.count(Open(dir.File("q8"))->fingerprint()), 0u);
}

// Fused experts, other shards, other dtypes of the source.
TEST(Convert, FusedExpertsAndShards) {
  TempDir dir;
  testing::RandomCheckpointOptions options;
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.File("separate")), IsOk());
  options.fused_experts = true;
  options.num_shards = 3;
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.File("fused")), IsOk());
  ASSERT_THAT(Convert(dir.File("separate"), dir.File("a"), "q4"), IsOk());
  ASSERT_THAT(Convert(dir.File("fused"), dir.File("b"), "q4"), IsOk());
  EXPECT_EQ(Contents(dir.File("a")), Contents(dir.File("b")));
  ExpectRoundTrip(dir.File("fused"), ParseWeightFormats("q8").value());
  for (const DType dtype : {DType::kF16, DType::kF32}) {
    TempDir other;
    options.dtype = dtype;
    ASSERT_THAT(WriteRandomCheckpoint(options, other.path()), IsOk());
    for (const char* format : {"q8", "source", "bf16"}) {
      ExpectRoundTrip(other.path(), ParseWeightFormats(format).value());
    }
  }
}

// As the public checkpoints are, but for the size: separate experts in 41
// shards, cut wherever a file is full, and an index.
TEST(Convert, ShardsAsPublished) {
  TempDir dir;
  testing::RandomCheckpointOptions options;
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.File("whole")), IsOk());
  options.num_shards = 41;
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.File("shards")), IsOk());
  const Json index =
      ParseJson(ReadFile(dir.File("shards/model.safetensors.index.json"),
                         int64_t{1} << 20)
                    .value())
          .value();
  const Json& files = index["weight_map"];
  std::set<std::string> distinct;
  int apart = 0;
  for (const auto& [name, file] : files.items()) {
    distinct.insert(file.get<std::string>());
    if (!absl::StrContains(name, ".experts.")) continue;
    if (!absl::EndsWith(name, "gate_proj.weight")) continue;
    const std::string down =
        absl::StrReplaceAll(name, {{"gate_proj.weight", "down_proj.weight"}});
    apart += files[down] != file;
  }
  EXPECT_EQ(distinct.size(), 41u);
  EXPECT_TRUE(distinct.count("model-00041-of-00041.safetensors"));
  EXPECT_GT(apart, 0);  // an expert's matrices, in two files
  for (const char* format : {"q4", "q8", "source"}) {
    const std::string a = dir.File(absl::StrCat("a-", format));
    const std::string b = dir.File(absl::StrCat("b-", format));
    ASSERT_THAT(Convert(dir.File("whole"), a, format), IsOk());
    ASSERT_THAT(Convert(dir.File("shards"), b, format), IsOk());
    EXPECT_EQ(Contents(a), Contents(b)) << format;
  }
  ExpectRoundTrip(dir.File("shards"), ParseWeightFormats("q4-q8").value());
}

TEST(Convert, WithoutMtp) {
  TempDir dir;
  ASSERT_THAT(
      testing::WriteRandomCheckpoint({.with_mtp = false}, dir.File("model")),
      IsOk());
  ExpectRoundTrip(dir.File("model"), ParseWeightFormats("q4").value());
}

TEST(Convert, ExpertsOfSeveralDTypesBecomeF32) {
  TempDir dir;
  testing::RandomCheckpointOptions options;
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.File("model")), IsOk());
  std::vector<NamedTensor> tensors =
      testing::ReadTensors(dir.File("model")).value();
  for (NamedTensor& tensor : tensors) {
    if (tensor.name == "model.layers.2.mlp.experts.5.down_proj.weight") {
      tensor = ConvertTensor(tensor, DType::kF16);
    }
  }
  ASSERT_THAT(
      testing::WriteCheckpoint(dir.File("mixed"), options.config_json, tensors),
      IsOk());
  ASSERT_THAT(Convert(dir.File("mixed"), dir.File("out"), "source"), IsOk());
  const auto source = Open(dir.File("mixed"));
  const auto converted = Open(dir.File("out"));
  EXPECT_EQ(converted->expert_dtype(), DType::kF32);
  const ExpertWeights from = source->FindExpert(2, 5).value();
  const ExpertWeights to = converted->FindExpert(2, 5).value();
  ExpectConverted(from.down_proj, to.down_proj, DType::kF32, "down");
  ExpectConverted(from.gate_proj, to.gate_proj, DType::kF32, "gate");
}

std::string TiedConfig() {
  Json config = ParseJson(testing::SmallConfigJson()).value();
  config["tie_word_embeddings"] = true;
  return DumpJson(config);
}

TEST(Convert, TiedHead) {
  TempDir dir;
  testing::RandomCheckpointOptions options;
  options.config_json = TiedConfig();
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.File("model")), IsOk());
  const auto source = Open(dir.File("model"));
  const WeightView embedding = source->Find(kEmbeddingName).value();
  for (const char* format : {"q8", "q4", "bf16dot", "bf16", "source"}) {
    SCOPED_TRACE(format);
    TempDir out;
    ASSERT_THAT(Convert(dir.File("model"), out.File("out"), format), IsOk());
    const auto converted = Open(out.File("out"));
    const WeightView head = converted->Find(kLmHeadName).value();
    const WeightView kept = converted->Find(kEmbeddingName).value();
    ExpectConverted(embedding, kept, DType::kBF16, "embedding");
    const DType dtype =
        Stored(ParseWeightFormats(format)->lm_head, DType::kBF16);
    ExpectConverted(embedding, head, dtype, "head");
    const bool own = dtype != DType::kBF16;
    EXPECT_EQ(head.data == kept.data, !own);
    EXPECT_THAT(converted->VerifyTensor(kLmHeadName), IsOk());
    InlinePool pool;
    const auto report = VerifyCheckpoint(out.File("out"), &pool, {});
    ASSERT_THAT(report, IsOk());
    int64_t expected = own ? 1 : 0;
    EXPECT_THAT(ForEachNonExpertWeight(
                    converted->config(), true,
                    [&](const std::string&, absl::Span<const int64_t>) {
                      ++expected;
                      return absl::OkStatus();
                    }),
                IsOk());
    expected +=
        converted->num_expert_layers() * converted->config().num_experts;
    EXPECT_EQ(report->num_checked, expected);
  }
}

TEST(Convert, ReadBytesCopiesWhatTheViewShows) {
  TempDir dir;
  ASSERT_THAT(Convert(FixturePath("tiny_a_bf16"), dir.File("out"), "q4-q8"),
              IsOk());
  const auto checkpoint = Open(dir.File("out"));
  const WeightView head = checkpoint->Find(kLmHeadName).value();
  const ExpertWeights expert = checkpoint->FindExpert(1, 3).value();
  for (const WeightView& view : {head, expert.up_proj, expert.down_proj}) {
    std::string bytes(WeightBytes(view), 'x');
    checkpoint->ReadBytes(view, bytes.data());
    EXPECT_EQ(std::memcmp(bytes.data(), view.data, bytes.size()), 0);
  }
}

TEST(Convert, DamagedSource) {
  TempDir dir;
  testing::RandomCheckpointOptions options;
  options.dtype = DType::kF32;
  ASSERT_THAT(WriteRandomCheckpoint(options, dir.File("model")), IsOk());
  const std::vector<NamedTensor> tensors =
      testing::ReadTensors(dir.File("model")).value();
  const auto status_with = [&](const std::string& name, float value,
                               const char* format) {
    std::vector<NamedTensor> changed = tensors;
    for (NamedTensor& tensor : changed) {
      if (tensor.name != name) continue;
      std::vector<float> values = TensorValues(tensor);
      values[values.size() / 2] = value;
      tensor = testing::MakeTensor(name, tensor.shape, values, tensor.dtype);
    }
    TempDir work;
    EXPECT_THAT(testing::WriteCheckpoint(work.File("model"),
                                         options.config_json, changed),
                IsOk());
    const absl::Status status =
        Convert(work.File("model"), work.File("out"), format);
    EXPECT_FALSE(std::filesystem::exists(work.File("out/switchyard.json")));
    return status;
  };
  for (const char* name :
       {"model.norm.weight", "model.layers.1.mlp.experts.7.up_proj.weight",
        "model.layers.3.self_attn.o_proj.weight", "lm_head.weight"}) {
    for (const char* format : {"q8", "q4", "source"}) {
      EXPECT_THAT(status_with(name, NAN, format),
                  StatusIs(kDataLoss, AllOf(HasSubstr(name), HasSubstr("NaN"))))
          << format;
    }
  }
  const char* experts = "model.layers.0.mlp.experts.0.down_proj.weight";
  EXPECT_THAT(status_with(experts, 1e30f, "q8"),
              StatusIs(kInvalid, AllOf(HasSubstr(experts),
                                       HasSubstr("too large for Q8"))));
  EXPECT_THAT(status_with(experts, 3.4e38f, "bf16"),
              StatusIs(kInvalid, HasSubstr("too large for BF16")));
  EXPECT_THAT(status_with(experts, 3.4e38f, "bf16dot"),
              StatusIs(kInvalid, HasSubstr("too large for BF16DOT")));
}

}  // namespace
}  // namespace switchyard::model
