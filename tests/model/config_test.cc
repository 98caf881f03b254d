#include "model/config.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard::model {
namespace {

using ::testing::AllOf;
using ::testing::DoubleEq;
using ::testing::ElementsAre;
using testing::FixturePath;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::StatusIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string ReadFixture(const std::string& name) {
  auto text = ReadFile(FixturePath(name), 1 << 20);
  EXPECT_THAT(text, IsOk());
  return *text;
}

ModelConfig Parse(const std::string& json_text) {
  auto config = ParseModelConfig(json_text);
  EXPECT_THAT(config, IsOk());
  return *std::move(config);
}

// tests/testing's small config with `changes` laid over it; null removes a key.
std::string SmallConfigWith(const std::string& changes) {
  Json config = ParseJson(testing::SmallConfigJson()).value();
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

// As above, but null stays as null.
std::string SmallConfigWithNull(const std::string& key) {
  Json config = ParseJson(testing::SmallConfigJson()).value();
  config[key] = nullptr;
  return DumpJson(config);
}

void ExpectThe80B(const ModelConfig& config) {
  EXPECT_EQ(config.vocab_size, 151936);
  EXPECT_EQ(config.hidden_size, 2048);
  EXPECT_EQ(config.num_hidden_layers, 48);
  ASSERT_EQ(config.layer_types.size(), 48u);
  ASSERT_EQ(config.is_moe.size(), 48u);
  for (int i = 0; i < 48; ++i) {
    EXPECT_EQ(config.layer_types[i], i % 4 == 3 ? LayerType::kFullAttention
                                                : LayerType::kLinearAttention);
    EXPECT_TRUE(config.is_moe[i]);
  }
  EXPECT_EQ(config.num_attention_heads, 16);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_EQ(config.rotary_dim(), 64);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.linear_num_key_heads, 16);
  EXPECT_EQ(config.linear_num_value_heads, 32);
  EXPECT_EQ(config.linear_key_head_dim, 128);
  EXPECT_EQ(config.linear_value_head_dim, 128);
  EXPECT_EQ(config.linear_conv_kernel_dim, 4);
  EXPECT_EQ(config.num_experts, 512);
  EXPECT_EQ(config.num_experts_per_tok, 10);
  EXPECT_TRUE(config.norm_topk_prob);
  EXPECT_EQ(config.moe_intermediate_size, 512);
  EXPECT_EQ(config.shared_expert_intermediate_size, 512);
  EXPECT_EQ(config.intermediate_size, 5120);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(151645));
  EXPECT_EQ(config.num_nextn_predict_layers, 0);
}

TEST(ParseModelConfig, Qwen3Next) {
  const ModelConfig config =
      Parse(ReadFixture("configs/config.qwen3-next-80b-a3b.json"));
  ExpectThe80B(config);
  EXPECT_EQ(config.rope.theta, 1e7);
  EXPECT_FALSE(config.rope.yarn);
  EXPECT_EQ(config.max_position_embeddings, 262144);
}

TEST(ParseModelConfig, CoderNextInBothSpellings) {
  for (const char* name : {"configs/config.qwen3-coder-next.json",
                           "configs/config.qwen3-coder-next.v5.json"}) {
    SCOPED_TRACE(name);
    const ModelConfig config = Parse(ReadFixture(name));
    ExpectThe80B(config);
    EXPECT_EQ(config.rope.theta, 5e6);
    EXPECT_FALSE(config.rope.yarn);
    EXPECT_EQ(config.max_position_embeddings, 262144);
  }
}

TEST(ParseModelConfig, Yarn) {
  const ModelConfig config =
      Parse(ReadFixture("configs/config.qwen3-next-80b-a3b.yarn.json"));
  ExpectThe80B(config);
  EXPECT_TRUE(config.rope.yarn);
  EXPECT_EQ(config.rope.factor, 4);
  EXPECT_EQ(config.rope.original_max_position_embeddings, 262144);
  EXPECT_EQ(config.rope.beta_fast, 32);
  EXPECT_EQ(config.rope.beta_slow, 1);
  EXPECT_TRUE(config.rope.truncate);
  EXPECT_NEAR(config.rope.attention_factor, 1.1386294361119891, 1e-15);
  // The writer's own limit, less than 4 * 262144.
  EXPECT_EQ(config.max_position_embeddings, 1010000);
}

TEST(ParseModelConfig, IrregularLayers) {
  const ModelConfig config = Parse(ReadFixture("tiny_b_fp32/config.json"));
  constexpr auto kLinear = LayerType::kLinearAttention;
  constexpr auto kFull = LayerType::kFullAttention;
  EXPECT_THAT(config.layer_types,
              ElementsAre(kLinear, kFull, kLinear, kLinear, kLinear, kFull));
  EXPECT_THAT(config.is_moe, ElementsAre(true, true, false, true, true, true));
  EXPECT_EQ(config.rotary_dim(), 10);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
}

TEST(ParseModelConfig, EveryFixtureAndTheDemo) {
  for (const std::string& path : {FixturePath("tiny_a_bf16/config.json"),
                                  FixturePath("tiny_a_yarn/config.json"),
                                  FixturePath("tiny_b_fp32/config.json"),
                                  testing::ModelPath("demo/config.json")}) {
    const auto text = ReadFile(path, 1 << 20);
    ASSERT_THAT(text, IsOk());
    EXPECT_THAT(ParseModelConfig(*text), IsOk()) << path;
  }
}

TEST(ParseModelConfig, AbsentAndNullMeanTransformersDefaults) {
  const ModelConfig config = Parse(R"({"model_type": "qwen3_next",
      "vocab_size": 99, "hidden_size": 64, "num_hidden_layers": 5,
      "head_dim": null, "layer_types": null, "rope_scaling": null,
      "eos_token_id": null, "attention_bias": null, "hidden_act": null})");
  EXPECT_EQ(config.num_attention_heads, 16);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_EQ(config.rope.theta, 10000);
  EXPECT_EQ(config.rope.partial_rotary_factor, 0.25);
  EXPECT_EQ(config.max_position_embeddings, 32768);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.linear_num_key_heads, 16);
  EXPECT_EQ(config.linear_num_value_heads, 32);
  EXPECT_EQ(config.linear_key_head_dim, 128);
  EXPECT_EQ(config.linear_value_head_dim, 128);
  EXPECT_EQ(config.linear_conv_kernel_dim, 4);
  EXPECT_EQ(config.num_experts, 512);
  EXPECT_EQ(config.num_experts_per_tok, 10);
  EXPECT_TRUE(config.norm_topk_prob);
  EXPECT_EQ(config.moe_intermediate_size, 512);
  EXPECT_EQ(config.shared_expert_intermediate_size, 512);
  EXPECT_EQ(config.intermediate_size, 5632);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_THAT(config.eos_token_ids, IsEmpty());
  EXPECT_EQ(config.layer_types[3], LayerType::kFullAttention);
  EXPECT_EQ(config.layer_types[4], LayerType::kLinearAttention);
}

TEST(ParseModelConfig, LayerTypesWinOverTheInterval) {
  const ModelConfig config = Parse(SmallConfigWith(
      R"({"full_attention_interval": 2,
          "layer_types": ["full_attention", "linear_attention",
                          "linear_attention", "linear_attention"]})"));
  EXPECT_EQ(config.layer_types[0], LayerType::kFullAttention);
  EXPECT_EQ(config.layer_types[1], LayerType::kLinearAttention);
}

TEST(ParseModelConfig, SparseStepAndDenseLayers) {
  EXPECT_THAT(Parse(SmallConfigWith(R"({"decoder_sparse_step": 2})")).is_moe,
              ElementsAre(false, true, false, true));
  EXPECT_THAT(
      Parse(SmallConfigWith(
                R"({"decoder_sparse_step": 2, "mlp_only_layers": [3]})"))
          .is_moe,
      ElementsAre(false, true, false, false));
}

TEST(ParseModelConfig, EosIsANumberOrAList) {
  EXPECT_THAT(Parse(SmallConfigWith(R"({"eos_token_id": 5})")).eos_token_ids,
              ElementsAre(5));
  EXPECT_THAT(
      Parse(SmallConfigWith(R"({"eos_token_id": [5, 127]})")).eos_token_ids,
      ElementsAre(5, 127));
}

TEST(ParseModelConfig, ArchitecturesAloneIsEnough) {
  EXPECT_THAT(ParseModelConfig(SmallConfigWith(R"({"model_type": null})")),
              IsOk());
  EXPECT_THAT(ParseModelConfig(SmallConfigWith(R"({"architectures": null})")),
              IsOk());
}

// All spellings of one rope, and of YaRN.
TEST(ParseModelConfig, RopeSpellings) {
  for (const char* changes : {
           R"({"rope_theta": 777, "partial_rotary_factor": 0.5})",
           R"({"rope_theta": null, "partial_rotary_factor": null,
               "rope_parameters": {"rope_theta": 777.0, "rope_type": "default",
                                   "partial_rotary_factor": 0.5}})",
           R"({"rope_theta": 777, "partial_rotary_factor": 0.5,
               "rope_parameters": {"rope_theta": 777.0, "rope_type": "default",
                                   "partial_rotary_factor": 0.5}})",
           R"({"rope_theta": 777, "partial_rotary_factor": 0.5,
               "rope_scaling": {"type": "default", "rope_type": "default"}})",
       }) {
    const ModelConfig config = Parse(SmallConfigWith(changes));
    EXPECT_EQ(config.rope.theta, 777) << changes;
    EXPECT_EQ(config.rotary_dim(), 8) << changes;
    EXPECT_FALSE(config.rope.yarn) << changes;
  }
  for (const char* changes : {
           R"({"rope_scaling": {"rope_type": "yarn", "factor": 2}})",
           R"({"rope_scaling": {"type": "yarn", "factor": 2.0}})",
           R"({"rope_parameters": {"rope_type": "yarn", "factor": 2.0,
               "rope_theta": 10000, "partial_rotary_factor": 0.25}})",
           R"({"rope_scaling": {"type": "yarn", "factor": 2},
               "rope_parameters": {"rope_type": "yarn", "factor": 2.0}})",
       }) {
    const ModelConfig config = Parse(SmallConfigWith(changes));
    EXPECT_TRUE(config.rope.yarn) << changes;
    EXPECT_EQ(config.rope.factor, 2) << changes;
    // The original length by default is max_position_embeddings.
    EXPECT_EQ(config.rope.original_max_position_embeddings, 1024) << changes;
    EXPECT_EQ(config.max_position_embeddings, 2048) << changes;
    EXPECT_THAT(config.rope.attention_factor,
                DoubleEq(0.1 * 0.69314718055994531 + 1));
  }
}

TEST(ParseModelConfig, YarnValues) {
  const auto parse = [](const std::string& scaling) {
    return Parse(SmallConfigWith(R"({"rope_scaling": )" + scaling + "}"));
  };
  const ModelConfig config = parse(
      R"({"rope_type": "yarn", "factor": 4, "beta_fast": 16, "beta_slow": 2,
          "truncate": false, "attention_factor": 1.5,
          "original_max_position_embeddings": 512})");
  EXPECT_EQ(config.rope.beta_fast, 16);
  EXPECT_EQ(config.rope.beta_slow, 2);
  EXPECT_FALSE(config.rope.truncate);
  EXPECT_EQ(config.rope.attention_factor, 1.5);
  // config.json says 1024 > 512: its own limit.
  EXPECT_EQ(config.max_position_embeddings, 1024);
  // (0.1 * 2 ln 4 + 1) / (0.1 * 0.5 ln 4 + 1)
  EXPECT_NEAR(parse(R"({"rope_type": "yarn", "factor": 4, "mscale": 2,
                        "mscale_all_dim": 0.5})")
                  .rope.attention_factor,
              1.2772588722239782 / 1.0693147180559945, 1e-12);
  EXPECT_EQ(
      parse(R"({"rope_type": "yarn", "factor": 1})").rope.attention_factor, 1);
}

struct BadConfig {
  const char* changes;
  const char* message;  // a part of it
};

class ParseModelConfigErrors : public ::testing::TestWithParam<BadConfig> {};

TEST_P(ParseModelConfigErrors, SaysWhatIsWrong) {
  EXPECT_THAT(ParseModelConfig(SmallConfigWith(GetParam().changes)),
              StatusIs(kInvalid, HasSubstr(GetParam().message)))
      << GetParam().changes;
}

INSTANTIATE_TEST_SUITE_P(
    Architecture, ParseModelConfigErrors,
    ::testing::Values(
        BadConfig{R"({"model_type": "llama"})", "\"llama\""},
        BadConfig{R"({"model_type": "qwen3_5_moe"})",
                  "served is model_type \"qwen3_next\""},
        BadConfig{R"({"architectures": ["LlamaForCausalLM"]})",
                  "LlamaForCausalLM"},
        BadConfig{R"({"architectures": [7]})", "another architecture"},
        BadConfig{R"({"architectures": "Qwen3NextForCausalLM"})",
                  "architectures must be a list"},
        BadConfig{R"({"model_type": null, "architectures": null})",
                  "another architecture"},
        BadConfig{R"({"model_type": 3})", "model_type is 3"},
        BadConfig{R"({"quantization_config": {"quant_method": "fp8"}})",
                  "switchyard convert"},
        BadConfig{R"({"attention_bias": true})", "attention_bias is true"},
        BadConfig{R"({"use_sliding_window": true})", "use_sliding_window"},
        BadConfig{R"({"hidden_act": "gelu"})", "\"gelu\""},
        BadConfig{R"({"num_nextn_predict_layers": 2})",
                  "num_nextn_predict_layers is 2"}));

INSTANTIATE_TEST_SUITE_P(
    Sizes, ParseModelConfigErrors,
    ::testing::Values(
        BadConfig{R"({"vocab_size": null})", "vocab_size is missing"},
        BadConfig{R"({"hidden_size": null})", "hidden_size is missing"},
        BadConfig{R"({"num_hidden_layers": null})",
                  "num_hidden_layers is missing"},
        BadConfig{R"({"vocab_size": 0})", "vocab_size is 0"},
        BadConfig{R"({"vocab_size": 99999999999})",
                  "vocab_size is 99999999999"},
        BadConfig{R"({"hidden_size": -1})", "hidden_size is -1"},
        BadConfig{R"({"hidden_size": 32.5})", "hidden_size is 32.5"},
        BadConfig{R"({"hidden_size": "32"})", "hidden_size is \"32\""},
        BadConfig{R"({"hidden_size": 18446744073709551615})", "hidden_size"},
        BadConfig{R"({"hidden_size": 99999999999999999999999})",
                  "hidden_size is an integer beyond 64 bits"},
        BadConfig{R"({"num_hidden_layers": 100000})", "1 to 1024"},
        BadConfig{R"({"num_attention_heads": 0})", "num_attention_heads is 0"},
        BadConfig{R"({"num_key_value_heads": 0})", "num_key_value_heads is 0"},
        BadConfig{R"({"num_key_value_heads": 3})",
                  "num_attention_heads 4 is not a multiple"},
        BadConfig{R"({"head_dim": 0})", "head_dim is 0"},
        BadConfig{R"({"max_position_embeddings": 0})",
                  "max_position_embeddings"},
        BadConfig{R"({"rms_norm_eps": 0})", "rms_norm_eps is 0"},
        BadConfig{R"({"rms_norm_eps": "1e-6"})", "rms_norm_eps"},
        BadConfig{R"({"linear_num_key_heads": 0})", "linear_num_key_heads"},
        BadConfig{R"({"linear_num_value_heads": 3})",
                  "linear_num_value_heads 3 is not a multiple"},
        BadConfig{R"({"linear_key_head_dim": 0})", "linear_key_head_dim"},
        BadConfig{R"({"linear_value_head_dim": 0})", "linear_value_head_dim"},
        BadConfig{R"({"linear_conv_kernel_dim": 1})", "linear_conv_kernel_dim"},
        BadConfig{R"({"num_experts": 0})", "num_experts is 0"},
        BadConfig{R"({"num_experts": 100000})", "num_experts is 100000"},
        BadConfig{R"({"num_experts_per_tok": 0})", "num_experts_per_tok is 0"},
        BadConfig{R"({"num_experts_per_tok": 9})",
                  "num_experts_per_tok 9 is more than num_experts 8"},
        BadConfig{R"({"norm_topk_prob": 1})", "norm_topk_prob is 1"},
        BadConfig{R"({"moe_intermediate_size": 0})", "moe_intermediate_size"},
        BadConfig{R"({"shared_expert_intermediate_size": 0})",
                  "shared_expert_intermediate_size"},
        BadConfig{R"({"intermediate_size": 0})", "intermediate_size"},
        BadConfig{R"({"tie_word_embeddings": "no"})", "tie_word_embeddings"},
        BadConfig{R"({"eos_token_id": 128})", "eos_token_id is 128"},
        BadConfig{R"({"eos_token_id": [1, -1]})", "eos_token_id"},
        BadConfig{R"({"eos_token_id": "2"})", "eos_token_id"}));

INSTANTIATE_TEST_SUITE_P(
    Layers, ParseModelConfigErrors,
    ::testing::Values(
        BadConfig{R"({"full_attention_interval": 0})",
                  "full_attention_interval is 0"},
        BadConfig{R"({"layer_types": ["full_attention"]})",
                  "num_hidden_layers = 4"},
        BadConfig{R"({"layer_types": "full_attention"})", "layer_types must"},
        BadConfig{R"({"layer_types": ["full_attention", "mamba",
                      "full_attention", "full_attention"]})",
                  "layer_types[1] is \"mamba\""},
        BadConfig{R"({"layer_types": [1, 2, 3, 4]})", "layer_types[0] is 1"},
        BadConfig{R"({"mlp_only_layers": [4]})", "mlp_only_layers"},
        BadConfig{R"({"mlp_only_layers": ["1"]})", "mlp_only_layers"},
        BadConfig{R"({"decoder_sparse_step": 0})", "decoder_sparse_step"}));

INSTANTIATE_TEST_SUITE_P(
    Rope, ParseModelConfigErrors,
    ::testing::Values(
        BadConfig{R"({"rope_theta": 1})", "rope_theta is 1"},
        BadConfig{R"({"rope_theta": "1e4"})", "rope_theta"},
        BadConfig{R"({"partial_rotary_factor": 0})", "0 rotary dimensions"},
        BadConfig{R"({"partial_rotary_factor": 0.2})", "3 rotary dimensions"},
        BadConfig{R"({"partial_rotary_factor": 1.5})", "partial_rotary_factor"},
        BadConfig{R"({"rope_scaling": 4})", "rope_scaling is 4"},
        BadConfig{R"({"rope_parameters": []})", "rope_parameters is []"},
        BadConfig{R"({"rope_scaling": {"rope_type": "linear", "factor": 2}})",
                  "rope_type is \"linear\""},
        BadConfig{R"({"rope_scaling": {"rope_type": 1}})", "rope_type is 1"},
        BadConfig{R"({"rope_scaling": {"factor": 2}})",
                  "say rope_type \"yarn\""},
        BadConfig{R"({"rope_scaling": {"rope_type": "yarn", "factor": 2,
                      "mrope_section": [1, 1, 2]}})",
                  "unknown key mrope_section"},
        BadConfig{R"({"rope_parameters": {"rope_theta": 5}})",
                  "rope_theta is 10000, but elsewhere 5"},
        BadConfig{R"({"rope_scaling": {"type": "default", "rope_type": "yarn",
                      "factor": 2}})",
                  "but elsewhere"},
        BadConfig{R"({"rope_scaling": {"rope_type": "yarn"}})",
                  "factor is missing"},
        BadConfig{R"({"rope_scaling": {"rope_type": "yarn", "factor": 0.5}})",
                  "factor is 0.5"},
        BadConfig{R"({"rope_scaling": {"rope_type": "yarn", "factor": 2,
                      "original_max_position_embeddings": 0}})",
                  "original_max_position_embeddings is 0"},
        BadConfig{R"({"rope_scaling": {"rope_type": "yarn", "factor": 2,
                      "beta_fast": 0}})",
                  "beta_fast is 0"},
        BadConfig{R"({"rope_scaling": {"rope_type": "yarn", "factor": 2,
                      "beta_fast": 1, "beta_slow": 2}})",
                  "less than beta_slow"},
        BadConfig{R"({"rope_scaling": {"rope_type": "yarn", "factor": 2,
                      "attention_factor": 0}})",
                  "attention_factor is 0"},
        BadConfig{R"({"rope_scaling": {"rope_type": "yarn", "factor": 1024,
                      "original_max_position_embeddings": 1073741824}})",
                  "positions are supported"}));

TEST(ParseModelConfig, NotAnObject) {
  EXPECT_THAT(ParseModelConfig(""), StatusIs(kInvalid));
  EXPECT_THAT(ParseModelConfig("{"), StatusIs(kInvalid));
  EXPECT_THAT(ParseModelConfig("[1]"),
              StatusIs(kInvalid, HasSubstr("not a JSON object")));
  EXPECT_THAT(ParseModelConfig(SmallConfigWithNull("hidden_size")),
              StatusIs(kInvalid, HasSubstr("hidden_size is missing")));
}

// A long value is cut in messages, between characters.
TEST(ParseModelConfig, MessagesStayShort) {
  std::string long_name;
  for (int i = 0; i < 1000; ++i) long_name += "\xC3\xA4";  // a umlaut
  const auto config = ParseModelConfig(
      SmallConfigWith(R"({"hidden_size": ")" + long_name + "\"}"));
  ASSERT_THAT(config, StatusIs(kInvalid, HasSubstr("\xC3\xA4...")));
  EXPECT_LT(config.status().message().size(), 200u);
}

TEST(ParseGenerationConfig, Fixtures) {
  auto config = ParseGenerationConfig(
      ReadFixture("configs/generation_config.instruct.json"));
  ASSERT_THAT(config, IsOk());
  EXPECT_TRUE(config->do_sample);
  EXPECT_EQ(config->temperature, 0.7);
  EXPECT_EQ(config->top_p, 0.8);
  EXPECT_EQ(config->top_k, 20);
  EXPECT_EQ(config->min_p, 0);
  EXPECT_EQ(config->repetition_penalty, 1);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(151645, 151643));
  config = ParseGenerationConfig(
      ReadFixture("configs/generation_config.thinking.json"));
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->temperature, 0.6);
  EXPECT_EQ(config->top_p, 0.95);
  config = ParseGenerationConfig(
      ReadFixture("configs/generation_config.coder-next.json"));
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->temperature, 1.0);
  EXPECT_EQ(config->top_k, 40);
}

TEST(ParseGenerationConfig, DefaultsAndOff) {
  const auto config = ParseGenerationConfig(
      R"({"top_k": -1, "do_sample": false, "eos_token_id": 3,
          "temperature": null})");
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->top_k, 0);
  EXPECT_FALSE(config->do_sample);
  EXPECT_EQ(config->temperature, 1);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(3));
}

TEST(ParseGenerationConfig, Errors) {
  for (const char* text :
       {R"({"temperature": -1})", R"({"temperature": "hot"})",
        R"({"top_p": 0})", R"({"top_p": 1.5})", R"({"top_k": -2})",
        R"({"top_k": 1.5})", R"({"min_p": 2})", R"({"repetition_penalty": 0})",
        R"({"eos_token_id": -1})", R"({"do_sample": "yes"})", "[]",
        "nonsense"}) {
    EXPECT_THAT(ParseGenerationConfig(text), StatusIs(kInvalid)) << text;
  }
}

}  // namespace
}  // namespace switchyard::model
