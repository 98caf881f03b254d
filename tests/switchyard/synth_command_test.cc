#include "switchyard/synth/synth_command.h"

#include <cmath>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "model/weight_names.h"
#include "router/text/chat_format.h"
#include "switchyard/convert/convert_command.h"
#include "switchyard/synth/byte_tokenizer.h"
#include "switchyard/synth/synth_config.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"
#include "text/tokenizer.h"

namespace switchyard {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr char kSmall[] =
    "vocab_size=300,hidden_size=96,num_experts=6,num_experts_per_tok=2,"
    "moe_intermediate_size=40,shared_expert_intermediate_size=64,head_dim=32,"
    "num_attention_heads=4,linear_num_key_heads=2,linear_num_value_heads=4,"
    "linear_key_head_dim=16,linear_value_head_dim=16";

absl::Status Synth(const std::string& out, const std::string& format,
                   int threads = 2, uint64_t seed = 1, bool mtp = true) {
  std::ostringstream log;
  SynthOptions options;
  options.overrides = kSmall;
  options.num_layers = 4;
  options.mtp = mtp;
  options.format = format;
  options.out_dir = out;
  options.seed = seed;
  options.threads = threads;
  return RunSynth(options, log, false);
}

std::string FileOf(const std::string& directory, const std::string& name) {
  return ReadFile(directory + "/" + name, 1 << 30).value();
}

TEST(Synth, OurFormatsAreConversionsOfTheHuggingFaceOne) {
  TempDir dir;
  ASSERT_THAT(Synth(dir.File("hf"), "hf-bf16", 3), IsOk());
  const auto plain = model::Checkpoint::Open(dir.File("hf"));
  ASSERT_THAT(plain, IsOk());
  EXPECT_EQ((*plain)->config().num_hidden_layers, 4);
  EXPECT_TRUE((*plain)->has_mtp());
  EXPECT_FALSE(std::filesystem::exists(dir.File("hf/conversion.journal")));
  for (const char* format : {"q8", "q4", "q4-q8", "bf16dot"}) {
    SCOPED_TRACE(format);
    const std::string ours = dir.File(format);
    const std::string converted = dir.File(std::string("converted-") + format);
    ASSERT_THAT(Synth(ours, format, 1), IsOk());
    std::ostringstream log;
    ConvertCommandOptions convert;
    convert.model_dir = dir.File("hf");
    convert.out_dir = converted;
    convert.formats.format = format;
    convert.threads = 2;
    ASSERT_THAT(RunConvert(convert, log, false), IsOk());
    EXPECT_THAT(log.str(), HasSubstr("GB in"));
    for (const char* file :
         {"dense.safetensors", "experts-00000.safetensors",
          "experts-00004.safetensors", "config.json", "vocab.json"}) {
      EXPECT_EQ(FileOf(ours, file), FileOf(converted, file)) << file;
    }
    EXPECT_THAT(model::Checkpoint::Open(ours), IsOk());
  }
}

TEST(Synth, ValuesAreOfASensibleScale) {
  TempDir dir;
  ASSERT_THAT(Synth(dir.path() + "/m", "source", 2, 1, false), IsOk());
  const auto checkpoint = model::Checkpoint::Open(dir.File("m"));
  ASSERT_THAT(checkpoint, IsOk());
  const auto values = [&](const std::string& name) {
    return (*checkpoint)->FindFloats(name).value();
  };
  const auto rms = [&](const std::string& name) {
    double sum = 0;
    const std::vector<float> all = values(name);
    for (const float v : all) sum += double{v} * v;
    return std::sqrt(sum / static_cast<double>(all.size()));
  };
  const double unit = 1 / std::sqrt(96.0);
  EXPECT_NEAR(rms(model::kLmHeadName), unit, 0.05 * unit);
  EXPECT_NEAR(rms(model::kEmbeddingName), 1, 0.05);
  EXPECT_NEAR(rms("model.layers.0.mlp.shared_expert.down_proj.weight"),
              1 / std::sqrt(64.0), 0.01);
  for (const float v : values("model.norm.weight")) EXPECT_EQ(v, 0);
  for (const float v : values("model.layers.0.linear_attn.norm.weight")) {
    EXPECT_EQ(v, 1);
  }
  for (const float v : values("model.layers.1.linear_attn.A_log")) {
    EXPECT_GE(v, 0);
    EXPECT_LE(v, std::log(16.0) + 0.02);
  }
  for (const float v : values("model.layers.1.linear_attn.dt_bias")) {
    const double dt = std::log1p(std::exp(v));
    EXPECT_GE(dt, 0.00099);
    EXPECT_LE(dt, 0.101);
  }
  // Rows and tensors differ.
  EXPECT_NE(values("model.layers.0.mlp.gate.weight"),
            values("model.layers.1.mlp.gate.weight"));
}

TEST(Synth, SeedsAndRefusals) {
  TempDir dir;
  ASSERT_THAT(Synth(dir.File("one"), "q4"), IsOk());
  ASSERT_THAT(Synth(dir.File("two"), "q4", 2, /*seed=*/2), IsOk());
  EXPECT_NE((*model::Checkpoint::Open(dir.File("one")))->fingerprint(),
            (*model::Checkpoint::Open(dir.File("two")))->fingerprint());
  EXPECT_THAT(Synth(dir.File("one"), "q4"),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("one")));
  EXPECT_THAT(
      Synth(dir.File("x"), "q5"),
      StatusIs(kInvalid, AllOf(HasSubstr("--format"), HasSubstr("hf-bf16"))));
  EXPECT_THAT(Synth("", "q4"), StatusIs(kInvalid, HasSubstr("--out")));
  EXPECT_THAT(Synth(dir.File("x"), "q4", -1),
              StatusIs(kInvalid, HasSubstr("--threads")));
}

TEST(SynthConfig, GeometryAndOverrides) {
  const auto text = SynthConfig("", "", 0);
  ASSERT_THAT(text, IsOk());
  EXPECT_EQ(ParseJson(*text).value()["num_experts"], 512);
  const auto four = SynthConfig("", "hidden_size=256,rope_theta=5e6", 4);
  ASSERT_THAT(four, IsOk());
  const Json config = ParseJson(*four).value();
  EXPECT_EQ(config["num_hidden_layers"], 4);
  EXPECT_EQ(config["hidden_size"], 256);
  // Layer types are cut, or left to the interval.
  Json listed = config;
  listed["layer_types"] = {"linear_attention", "full_attention",
                           "linear_attention", "full_attention"};
  const auto two = SynthConfig(DumpJson(listed), "", 2);
  ASSERT_THAT(two, IsOk());
  EXPECT_EQ(ParseJson(*two).value()["layer_types"].size(), 2u);
  const auto six = SynthConfig(DumpJson(listed), "", 6);
  ASSERT_THAT(six, IsOk());
  EXPECT_FALSE(ParseJson(*six).value().contains("layer_types"));

  EXPECT_THAT(SynthConfig("", "hidden_size", 0),
              StatusIs(kInvalid, HasSubstr("--set")));
  EXPECT_THAT(SynthConfig("", "hidden_size=many", 0),
              StatusIs(kInvalid, HasSubstr("hidden_size=many")));
  EXPECT_THAT(SynthConfig("", "hidden_size=-5", 0),
              StatusIs(kInvalid, HasSubstr("hidden_size")));
  EXPECT_THAT(SynthConfig("[]", "", 0),
              StatusIs(kInvalid, HasSubstr("object")));
}

TEST(ByteTokenizer, SpeaksBytesAndChat) {
  for (const int64_t vocab : {259, 1000, 151936}) {
    TempDir dir;
    const auto files = ByteTokenizerFiles(vocab);
    ASSERT_THAT(files, IsOk());
    for (const auto& file : *files) dir.Write(file.name, file.content);
    const auto tokenizer = text::Tokenizer::Load(dir.path());
    ASSERT_THAT(tokenizer, IsOk());
    const std::string text = "Grüße, 世界!\n\t\x01 <|im_end|>";
    const std::vector<int32_t> ids = (*tokenizer)->Encode(text);
    EXPECT_EQ((*tokenizer)->Decode(ids, false), text);
    const int32_t end = vocab == 151936 ? 151645 : static_cast<int>(vocab) - 1;
    EXPECT_EQ(ids.back(), end);
    EXPECT_EQ((*tokenizer)->AddedTokenId("<|im_end|>"), end);
    if (vocab > 400) {
      EXPECT_EQ((*tokenizer)->TokenBytes(300), "~300~");
    }
    const auto format = router::DetectChatFormat(dir.path());
    ASSERT_THAT(format, IsOk());
    EXPECT_EQ(*format, router::ChatFormat::kInstruct);
  }
  EXPECT_THAT(ByteTokenizerFiles(258), StatusIs(kInvalid, HasSubstr("259")));
}

}  // namespace
}  // namespace switchyard
