#include "model/fingerprint.h"

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "tests/model/checkpoint_test_util.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using testing::IsOk;
using testing::NamedTensor;
using testing::TempDir;

TEST(Fingerprint, ConfigSpellingsAreOneFingerprint) {
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
  const char* yarn = R"({"rope_scaling": {"type": "yarn", "factor": 2)";
  std::map<std::string, std::string> seen;
  for (const char* more :
       {"", R"(, "beta_fast": 31)", R"(, "beta_slow": 2)",
        R"(, "truncate": false)", R"(, "attention_factor": 1)",
        R"(, "original_max_position_embeddings": 512)"}) {
    dir.Write("config.json",
              Changed(options.config_json, absl::StrCat(yarn, more, "}}")));
    const auto [it, added] =
        seen.emplace(Open(dir.path())->fingerprint(), more);
    EXPECT_TRUE(added) << more << " is like " << it->second;
  }
}

// The sample: whole tensors up to 8 KiB; of larger ones the first and last 4
// KiB.
TEST(Fingerprint, AFlippedByteInTheSampleChangesTheFingerprint) {
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

}  // namespace
}  // namespace switchyard::model
