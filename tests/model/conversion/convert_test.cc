#include "model/conversion/convert.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/compute_pool.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quantized.h"
#include "kernels/weight_codec.h"
#include "model/checkpoint.h"
#include "model/conversion/target_directory.h"
#include "model/conversion/verify.h"
#include "model/expert_blob.h"
#include "model/manifest.h"
#include "model/safetensors.h"
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
    return testing::MakeTensor("", {source.rows, source.cols}, values, dtype)
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

absl::Status Convert(const std::string& model_dir, const std::string& out_dir,
                     const WeightFormats& formats, ComputePool* pool,
                     ConversionProgress progress = {}) {
  return ConvertCheckpoint({.model_dir = model_dir,
                            .out_dir = out_dir,
                            .formats = formats,
                            .pool = pool,
                            .progress = std::move(progress)});
}

absl::Status Convert(const std::string& model_dir, const std::string& out_dir,
                     absl::string_view format) {
  InlinePool pool;
  return Convert(model_dir, out_dir, ParseWeightFormats(format).value(), &pool);
}

std::unique_ptr<Checkpoint> Open(const std::string& directory) {
  auto checkpoint = Checkpoint::Open(directory);
  EXPECT_THAT(checkpoint, IsOk());
  return *std::move(checkpoint);
}

// Every file of a directory but the journal, by name.
std::map<std::string, std::string> Contents(const std::string& directory) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    contents[entry.path().filename().string()] =
        ReadFile(entry.path().string(), 1 << 30).value();
  }
  return contents;
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
    for (const char* format : {"q8", "q4", "q4-q8", "bf16", "source"}) {
      ExpectRoundTrip(FixturePath(name), ParseWeightFormats(format).value());
    }
  }
  ExpectRoundTrip(
      FixturePath("tiny_a_yarn"),
      {WeightFormat::kSource, WeightFormat::kQ4, WeightFormat::kBF16});
  ExpectRoundTrip(testing::ModelPath("demo"),
                  ParseWeightFormats("q4-q8").value());
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
  for (const char* format : {"q8", "q4", "q4-q8", "bf16", "source"}) {
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
  for (const char* format : {"q8", "q4", "bf16", "source"}) {
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
    EXPECT_EQ(head.data == kept.data, !kernels::IsQuantized(dtype));
    EXPECT_THAT(converted->VerifyTensor(kLmHeadName), IsOk());
    InlinePool pool;
    const auto report = VerifyCheckpoint(out.File("out"), &pool, {});
    ASSERT_THAT(report, IsOk());
    int64_t expected = kernels::IsQuantized(dtype) ? 1 : 0;
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
}

// --- What was damaged afterwards. ---

class Damage : public ::testing::Test {
 protected:
  Damage() {
    EXPECT_THAT(Convert(FixturePath("tiny_b_fp32"), out(), "q4-q8"), IsOk());
  }
  std::string out() const { return dir_.File("out"); }
  std::string File(const std::string& name) const {
    return absl::StrCat(out(), "/", name);
  }
  void Flip(const std::string& file, int64_t at) {
    std::string bytes = ReadFile(File(file), 1 << 30).value();
    bytes[at] ^= 0x10;
    dir_.Write("out/" + file, bytes);
  }

  TempDir dir_;
};

TEST_F(Damage, AFlippedBitIsFoundByItsName) {
  InlinePool pool;
  int flips = 0;
  for (const auto& entry : std::filesystem::directory_iterator(out())) {
    const std::string file = entry.path().filename().string();
    if (!absl::EndsWith(file, ".safetensors")) continue;
    const auto opened = SafetensorsFile::Open(File(file));
    ASSERT_THAT(opened, IsOk());
    // Some of each file, the last byte of every one.
    int skip = 0;
    for (const auto& [name, tensor] : (*opened)->tensors()) {
      if (absl::StartsWith(name, "padding.") || skip++ % 9 != 0) continue;
      for (const int64_t at : {tensor.begin, tensor.end - 1}) {
        Flip(file, at);
        const auto report = VerifyCheckpoint(out(), &pool, {});
        ASSERT_THAT(report, IsOk());
        ASSERT_EQ(report->damaged.size(), 1u) << name;
        EXPECT_THAT(report->damaged[0],
                    AllOf(HasSubstr(File(file)), HasSubstr(name + " is"),
                          HasSubstr("SHA-256"), HasSubstr("again")));
        Flip(file, at);
        ++flips;
      }
    }
  }
  EXPECT_GT(flips, 20);
  const auto report = VerifyCheckpoint(out(), &pool, {});
  ASSERT_THAT(report, IsOk());
  EXPECT_TRUE(report->damaged.empty());
  EXPECT_GT(report->num_checked, 0);
}

TEST_F(Damage, VerifyWhileLoading) {
  Flip("experts-00001.safetensors", 4096 + 100);
  const auto checkpoint = Open(out());
  EXPECT_THAT(checkpoint->VerifyExpert(1, 0),
              StatusIs(kDataLoss, HasSubstr("experts-00001.safetensors")));
  EXPECT_THAT(checkpoint->VerifyExpert(1, 1), IsOk());
  EXPECT_THAT(checkpoint->VerifyTensor("no.such.tensor"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no.such")));
}

TEST_F(Damage, CutAndMissingFiles) {
  const std::string file = "experts-00003.safetensors";
  const std::string bytes = ReadFile(File(file), 1 << 30).value();
  dir_.Write("out/" + file, bytes.substr(0, bytes.size() - 1));
  EXPECT_THAT(Checkpoint::Open(out()),
              StatusIs(kInvalid, AllOf(HasSubstr(file), HasSubstr("cut"))));
  std::filesystem::remove(File(file));
  EXPECT_THAT(Checkpoint::Open(out()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(file)));
  // Another layer's experts in its place: the names differ.
  std::filesystem::copy(File("experts-00001.safetensors"), File(file));
  EXPECT_THAT(Checkpoint::Open(out()),
              StatusIs(kInvalid, HasSubstr("does not hold")));
}

// Manifests that contradict the files, each with a digest of its own.
TEST_F(Damage, LyingManifests) {
  const Manifest good =
      ParseManifest(ReadFile(File(kManifestFile), 1 << 30).value()).value();
  const auto open_with = [&](const std::function<void(Manifest*)>& change) {
    Manifest manifest = good;
    change(&manifest);
    dir_.Write(absl::StrCat("out/", kManifestFile),
               SerializeManifest(manifest));
    return Checkpoint::Open(out()).status();
  };
  const auto tensor = [](Manifest* manifest,
                         const std::string& name) -> Manifest::Tensor& {
    return *std::find_if(manifest->tensors.begin(), manifest->tensors.end(),
                         [&](const auto& t) { return t.name == name; });
  };
  EXPECT_THAT(open_with([](Manifest*) {}), IsOk());
  EXPECT_THAT(open_with([](Manifest* m) { m->tensors.pop_back(); }),
              StatusIs(kInvalid, HasSubstr("is missing")));
  EXPECT_THAT(open_with([](Manifest* m) {
                m->tensors.push_back(m->tensors[0]);
                m->tensors.back().name = "more";
              }),
              StatusIs(kInvalid, HasSubstr("more is listed")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, "model.norm.weight").shape = {1, 2};
              }),
              StatusIs(kInvalid, HasSubstr("calls for")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, "model.norm.weight").dtype = DType::kBF16;
              }),
              StatusIs(kInvalid, HasSubstr("has it as F32")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, kEmbeddingName).dtype = DType::kQ8;
              }),
              StatusIs(kInvalid, HasSubstr("must not be quantised")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, kLmHeadName).dtype = DType::kQ4;
              }),
              StatusIs(kInvalid, HasSubstr("bytes of U8")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, kLmHeadName).file = "experts-00001.safetensors";
              }),
              StatusIs(kInvalid, HasSubstr("does not hold")));
  EXPECT_THAT(open_with([&](Manifest* m) {
                tensor(m, kLmHeadName).file = "config.json";
              }),
              StatusIs(kInvalid, HasSubstr("config.json")));
  EXPECT_THAT(open_with([](Manifest* m) { m->expert_dtype = DType::kQ8; }),
              StatusIs(kInvalid, HasSubstr("are expected")));
  EXPECT_THAT(open_with([](Manifest* m) { m->expert_layers.pop_back(); }),
              StatusIs(kInvalid, HasSubstr("are missing")));
  EXPECT_THAT(
      open_with([](Manifest* m) { m->expert_layers[0].sha256.pop_back(); }),
      StatusIs(kInvalid, HasSubstr("experts; config.json says")));
  EXPECT_THAT(open_with([](Manifest* m) {
                m->expert_layers.push_back(m->expert_layers.back());
                m->expert_layers.back().layer = 1000;
              }),
              StatusIs(kInvalid, HasSubstr("layer 1000")));
}

// --- Runs that were cut. ---

// What a child that runs `convert` and kills itself at its k-th report leaves.
void ConvertAndDie(const std::string& model, const std::string& out, int k) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    InlinePool pool;
    int reports = 0;
    const absl::Status status =
        Convert(model, out, ParseWeightFormats("q4-q8").value(), &pool,
                [&](int64_t, int64_t) {
                  if (reports++ == k) kill(getpid(), SIGKILL);
                });
    _exit(status.ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << k;
}

TEST(ConvertResume, KilledAnywhereItGoesOn) {
  const std::string model = FixturePath("tiny_a_bf16");
  TempDir dir;
  InlinePool pool;
  int reports = 0;
  int64_t total = 0;
  ASSERT_THAT(Convert(model, dir.File("whole"),
                      ParseWeightFormats("q4-q8").value(), &pool,
                      [&](int64_t, int64_t bytes) {
                        ++reports;
                        total = bytes;
                      }),
              IsOk());
  const auto whole = Contents(dir.File("whole"));
  ASSERT_GT(reports, 40);
  size_t most_finished = 0;
  for (int k = 0; k < reports; k += 1 + reports / 13) {
    SCOPED_TRACE(k);
    const std::string out = dir.File(absl::StrCat("out-", k));
    ConvertAndDie(model, out, k);
    EXPECT_THAT(Checkpoint::Open(out).status(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("unfinished conversion")));
    // What is finished stays as it is: the same file, not one like it.
    const std::string journal =
        ReadFile(absl::StrCat(out, "/", kJournalFile), 1 << 20).value();
    std::map<std::string, ino_t> finished;
    for (const auto& [file, content] : whole) {
      if (!absl::StrContains(journal, absl::StrCat("\"", file, "\""))) continue;
      struct stat info;
      ASSERT_EQ(stat(absl::StrCat(out, "/", file).c_str(), &info), 0);
      finished[absl::StrCat(out, "/", file)] = info.st_ino;
    }
    most_finished = std::max(most_finished, finished.size());
    int64_t first_done = -1;
    ASSERT_THAT(Convert(model, out, ParseWeightFormats("q4-q8").value(), &pool,
                        [&](int64_t done, int64_t) {
                          if (first_done < 0) first_done = done;
                        }),
                IsOk());
    EXPECT_EQ(first_done > 0, !finished.empty());
    EXPECT_LT(first_done, total);
    for (const auto& [path, inode] : finished) {
      struct stat info;
      ASSERT_EQ(stat(path.c_str(), &info), 0);
      EXPECT_EQ(info.st_ino, inode) << path;
    }
    EXPECT_EQ(Contents(out), whole);
  }
  EXPECT_GT(most_finished, 3u);
}

TEST(ConvertResume, DamagedJournalsCostWorkOnly) {
  const std::string model = FixturePath("tiny_a_bf16");
  TempDir dir;
  ASSERT_THAT(Convert(model, dir.File("whole"), "q4-q8"), IsOk());
  const auto whole = Contents(dir.File("whole"));
  // Each expert file of 16 experts reports 8 times, and once at its end.
  ConvertAndDie(model, dir.File("cut"), 185);
  const std::string journal =
      ReadFile(dir.File(absl::StrCat("cut/", kJournalFile)), 1 << 20).value();
  ASSERT_GT(std::count(journal.begin(), journal.end(), '\n'), 3);
  const size_t second = journal.find('\n') + 1;
  std::vector<std::string> damaged = {
      "",
      journal.substr(0, 10),
      journal.substr(0, journal.size() - 1),
      journal.substr(0, journal.size() / 2),
      journal + "{\"file\":\"x\"",
      journal.substr(0, second) + "nonsense\n" + journal.substr(second)};
  for (size_t i = 0; i < damaged.size(); ++i) {
    SCOPED_TRACE(i);
    const std::string out = dir.File(absl::StrCat("out-", i));
    std::filesystem::copy(dir.File("cut"), out);
    dir.Write(absl::StrCat("out-", i, "/", kJournalFile), damaged[i]);
    ASSERT_THAT(Convert(model, out, "q4-q8"), IsOk());
    EXPECT_EQ(Contents(out), whole);
  }
  // A finished file that lost its end is written again.
  const std::string out = dir.File("short");
  std::filesystem::copy(dir.File("cut"), out);
  std::filesystem::resize_file(out + "/dense.safetensors", 5000);
  ASSERT_THAT(Convert(model, out, "q4-q8"), IsOk());
  EXPECT_EQ(Contents(out), whole);
}

TEST(ConvertResume, Refusals) {
  const std::string model = FixturePath("tiny_a_bf16");
  TempDir dir;
  constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
  dir.Write("foreign/thesis.tex", "precious");
  EXPECT_THAT(Convert(model, dir.File("foreign"), "q8"),
              StatusIs(kPrecondition, AllOf(HasSubstr("is not empty"),
                                            HasSubstr("thesis.tex"))));
  EXPECT_EQ(Contents(dir.File("foreign")).size(), 1u);

  ConvertAndDie(model, dir.File("cut"), 10);
  const auto before = Contents(dir.File("cut"));
  EXPECT_THAT(Convert(model, dir.File("cut"), "q8"),
              StatusIs(kPrecondition, HasSubstr("another format")));
  EXPECT_THAT(Convert(FixturePath("tiny_b_fp32"), dir.File("cut"), "q4-q8"),
              StatusIs(kPrecondition, HasSubstr("another model")));
  EXPECT_EQ(Contents(dir.File("cut")), before);

  {
    const auto holder = TargetDirectory::Open(dir.File("locked"), "key");
    ASSERT_THAT(holder, IsOk());
    EXPECT_THAT(
        Convert(model, dir.File("locked"), "q8"),
        StatusIs(absl::StatusCode::kUnavailable, HasSubstr("another process")));
  }

  ASSERT_THAT(Convert(model, dir.File("done"), "q8"), IsOk());
  const auto done = Contents(dir.File("done"));
  EXPECT_THAT(Convert(model, dir.File("done"), "q8"),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("finished conversion")));
  EXPECT_THAT(Convert(dir.File("done"), dir.File("twice"), "q4"),
              StatusIs(kInvalid, HasSubstr("converted already")));
  EXPECT_THAT(Convert(dir.File("none"), dir.File("x"), "q4"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_EQ(Contents(dir.File("done")), done);
}

// A disk that takes no more than the first files.
TEST(ConvertResume, NoRoom) {
  const std::string model = FixturePath("tiny_a_bf16");
  TempDir dir;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {100'000, 100'000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const absl::Status status = Convert(model, dir.File("out"), "q4-q8");
    const std::string message(status.message());
    const bool good = absl::IsResourceExhausted(status) &&
                      absl::StrContains(message, "dense.safetensors.partial") &&
                      absl::StrContains(message, "make room");
    if (!good) fprintf(stderr, "%s\n", status.ToString().c_str());
    _exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (const auto& entry :
       std::filesystem::directory_iterator(dir.File("out"))) {
    EXPECT_EQ(entry.path().filename().string(), kJournalFile);
  }
  EXPECT_THAT(Convert(model, dir.File("out"), "q4-q8"), IsOk());
}

}  // namespace
}  // namespace switchyard::model
