#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace switchyard::model {
namespace {

constexpr char kModelType[] = "qwen3_next";
constexpr char kArchitecture[] = "Qwen3NextForCausalLM";

// Bounds of every size, far above any released model, such that no product of a
// tensor's dimensions, nor its bytes, nor layers * experts can leave int64_t
// (the largest: kMaxExperts * 2 kMaxWidth * kMaxHidden * 4 bytes = 2^53).
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxHidden = int64_t{1} << 17;
constexpr int64_t kMaxWidth = int64_t{1} << 20;  // of any MLP
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 8192;
constexpr int64_t kMaxConvTaps = 64;
constexpr int64_t kMaxExperts = 8192;
constexpr int64_t kMaxPositions = int64_t{1} << 30;
constexpr double kMaxYarnFactor = 1024;

// rope_parameters (transformers 5) and rope_scaling (before) may stand alone,
// together, or beside rope_theta and partial_rotary_factor at the top. All are
// laid into one object, under the new names; they may repeat but not contradict
// one another.
absl::StatusOr<Json> MergeRopeObjects(const Json& root) {
  Json merged = Json::object();
  const auto add = [&](const std::string& where, const std::string& key,
                       const Json& value) -> absl::Status {
    if (value.is_null()) return absl::OkStatus();
    const std::string name = key == "type" ? "rope_type" : key;
    const auto it = merged.find(name);
    if (it == merged.end()) {
      merged[name] = value;
    } else if (*it != value) {
      return absl::InvalidArgumentError(absl::StrCat(
          where, key, " is ", DescribeJson(value), ", but elsewhere ",
          DescribeJson(*it), ": make them equal or remove one"));
    }
    return absl::OkStatus();
  };
  for (const char* holder : {"rope_parameters", "rope_scaling"}) {
    const auto it = root.find(holder);
    if (it == root.end() || it->is_null()) continue;
    if (!it->is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(
          holder, " is ", DescribeJson(*it), "; it must be an object or null"));
    }
    for (const auto& [key, value] : it->items()) {
      SY_RETURN_IF_ERROR(add(absl::StrCat(holder, "."), key, value));
    }
  }
  for (const char* key : {"rope_theta", "partial_rotary_factor"}) {
    const auto it = root.find(key);
    if (it != root.end()) SY_RETURN_IF_ERROR(add("", key, *it));
  }
  return merged;
}

absl::Status CheckRopeKeys(const Json& merged, const std::string& rope_type) {
  static constexpr const char* kAlways[] = {"rope_type", "rope_theta",
                                            "partial_rotary_factor"};
  static constexpr const char* kYarnOnly[] = {
      "factor",    "original_max_position_embeddings",
      "beta_fast", "beta_slow",
      "truncate",  "attention_factor",
      "mscale",    "mscale_all_dim"};
  for (const auto& [key, value] : merged.items()) {
    const bool yarn_only = std::find(std::begin(kYarnOnly), std::end(kYarnOnly),
                                     key) != std::end(kYarnOnly);
    if (yarn_only && rope_type != "yarn") {
      return absl::InvalidArgumentError(absl::StrCat(
          "rope_parameters/rope_scaling has ", key, " but rope_type \"",
          rope_type, "\": say rope_type \"yarn\", or remove ", key));
    }
    if (!yarn_only && std::find(std::begin(kAlways), std::end(kAlways), key) ==
                          std::end(kAlways)) {
      return absl::InvalidArgumentError(
          absl::StrCat("rope_parameters/rope_scaling has the unknown key ", key,
                       "; it would change positions in a way that is not "
                       "supported"));
    }
  }
  return absl::OkStatus();
}

// The YaRN paper's factor on cos and sin: 0.1 * mscale * ln(factor) + 1.
double YarnMscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

absl::Status ParseYarn(const Json& merged, ModelConfig* config) {
  RopeParameters& rope = config->rope;
  rope.yarn = true;
  rope.original_max_position_embeddings = config->max_position_embeddings;
  double mscale = 0;
  double mscale_all_dim = 0;
  constexpr double kMaxBeta = 1e6;
  constexpr double kMaxScale = 1e3;
  JsonFields fields(merged, "rope_scaling.");
  if (!fields.Has("factor")) {
    fields.Fail("factor", "is missing; YaRN needs it");
  }
  fields.ReadDouble("factor", 1, kMaxYarnFactor, &rope.factor);
  fields.ReadInt("original_max_position_embeddings", 1, kMaxPositions,
                 &rope.original_max_position_embeddings);
  fields.ReadDouble("beta_fast", 1e-6, kMaxBeta, &rope.beta_fast);
  fields.ReadDouble("beta_slow", 1e-6, kMaxBeta, &rope.beta_slow);
  fields.ReadBool("truncate", &rope.truncate);
  fields.ReadDouble("attention_factor", 1e-3, kMaxScale,
                    &rope.attention_factor);
  fields.ReadDouble("mscale", 0, kMaxScale, &mscale);
  fields.ReadDouble("mscale_all_dim", 0, kMaxScale, &mscale_all_dim);
  if (rope.beta_fast < rope.beta_slow) {
    fields.Fail("beta_fast",
                absl::StrCat("is ", rope.beta_fast, ", less than beta_slow, ",
                             rope.beta_slow));
  }
  SY_RETURN_IF_ERROR(fields.status());
  if (!fields.Has("attention_factor")) {
    rope.attention_factor = mscale > 0 && mscale_all_dim > 0
                                ? YarnMscale(rope.factor, mscale) /
                                      YarnMscale(rope.factor, mscale_all_dim)
                                : YarnMscale(rope.factor, 1);
  }
  // A model card's recipe adds rope_scaling and leaves max_position_embeddings
  // at the original length; a larger value is the writer's own limit.
  if (config->max_position_embeddings <=
      rope.original_max_position_embeddings) {
    const double extended =
        rope.factor *
        static_cast<double>(rope.original_max_position_embeddings);
    if (extended > static_cast<double>(kMaxPositions)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "rope_scaling.factor times original_max_position_embeddings is ",
          extended, "; at most ", kMaxPositions, " positions are supported"));
    }
    config->max_position_embeddings = static_cast<int64_t>(extended);
  }
  return absl::OkStatus();
}

absl::Status ParseRope(const Json& root, ModelConfig* config) {
  SY_ASSIGN_OR_RETURN(const Json merged, MergeRopeObjects(root));
  std::string rope_type = "default";
  JsonFields fields(merged, "");
  fields.ReadString("rope_type", &rope_type);
  // 1 < theta: its logarithm divides.
  fields.ReadDouble("rope_theta", 1.0 + 1e-6, 1e15, &config->rope.theta);
  fields.ReadDouble("partial_rotary_factor", 0, 1,
                    &config->rope.partial_rotary_factor);
  SY_RETURN_IF_ERROR(fields.status());
  if (rope_type != "default" && rope_type != "yarn") {
    return absl::InvalidArgumentError(
        absl::StrCat("rope_type is \"", rope_type,
                     "\"; \"default\" and \"yarn\" are supported"));
  }
  SY_RETURN_IF_ERROR(CheckRopeKeys(merged, rope_type));
  const int rotary_dim = config->rotary_dim();
  if (rotary_dim < 2 || rotary_dim % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "partial_rotary_factor ", config->rope.partial_rotary_factor,
        " of head_dim ", config->head_dim, " gives ", rotary_dim,
        " rotary dimensions; they must be even and at least 2"));
  }
  return rope_type == "yarn" ? ParseYarn(merged, config) : absl::OkStatus();
}

absl::Status CheckArchitecture(const Json& root) {
  JsonFields fields(root, "");
  std::string model_type;
  fields.ReadString("model_type", &model_type);
  SY_RETURN_IF_ERROR(fields.status());
  const Json* architectures = fields.Find("architectures");
  bool named = false;
  if (architectures != nullptr) {
    if (!architectures->is_array()) {
      return absl::InvalidArgumentError("architectures must be a list");
    }
    for (const Json& name : *architectures) {
      named = named ||
              (name.is_string() && name.get<std::string>() == kArchitecture);
    }
  }
  const bool listed = architectures != nullptr && !architectures->empty();
  if (model_type.empty() ? !named
                         : model_type != kModelType || (listed && !named)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "another architecture: model_type is \"", model_type,
        "\", architectures ",
        architectures == nullptr ? "none" : DescribeJson(*architectures),
        "; served is model_type \"", kModelType, "\" with ", kArchitecture));
  }
  return absl::OkStatus();
}

absl::Status RefuseQuantization(const Json& root) {
  const JsonFields fields(root, "");
  const Json* const quantization = fields.Find("quantization_config");
  if (quantization == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("quantization_config is ", DescribeJson(*quantization),
                   "; such checkpoints are not served as they are: run "
                   "`switchyard convert`"));
}

// What transformers' Qwen3NextConfig would do otherwise than this engine.
absl::Status CheckUnsupported(const Json& root) {
  JsonFields fields(root, "");
  for (const char* key : {"attention_bias", "use_sliding_window"}) {
    bool value = false;
    fields.ReadBool(key, &value);
    if (value) fields.Fail(key, "is true; that is not supported");
  }
  std::string hidden_act = "silu";
  fields.ReadString("hidden_act", &hidden_act);
  // transformers knows SiLU by both names.
  if (hidden_act != "silu" && hidden_act != "swish") {
    fields.Fail("hidden_act",
                absl::StrCat("is \"", hidden_act, "\"; silu is supported"));
  }
  return fields.status();
}

// Sizes that every shape depends on. Values that a config may leave out have
// the defaults of transformers' Qwen3NextConfig.
absl::Status ParseSizes(const Json& root, ModelConfig* config) {
  config->num_attention_heads = 16;
  config->num_key_value_heads = 2;
  config->head_dim = 256;
  config->max_position_embeddings = 32768;
  config->linear_num_key_heads = 16;
  config->linear_num_value_heads = 32;
  config->linear_key_head_dim = 128;
  config->linear_value_head_dim = 128;
  config->linear_conv_kernel_dim = 4;
  config->num_experts = 512;
  config->num_experts_per_tok = 10;
  config->moe_intermediate_size = 512;
  config->shared_expert_intermediate_size = 512;
  config->intermediate_size = 5632;

  JsonFields fields(root, "");
  // Without these it is a cut or foreign file, not one that relies on defaults.
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers"}) {
    if (!fields.Has(key)) fields.Fail(key, "is missing");
  }
  fields.ReadInt("vocab_size", 1, kMaxVocab, &config->vocab_size);
  fields.ReadInt("hidden_size", 1, kMaxHidden, &config->hidden_size);
  fields.ReadInt("num_hidden_layers", 1, kMaxLayers,
                 &config->num_hidden_layers);
  fields.ReadInt("num_attention_heads", 1, kMaxHeads,
                 &config->num_attention_heads);
  fields.ReadInt("num_key_value_heads", 1, kMaxHeads,
                 &config->num_key_value_heads);
  fields.ReadInt("head_dim", 1, kMaxHeadDim, &config->head_dim);
  fields.ReadInt("max_position_embeddings", 1, kMaxPositions,
                 &config->max_position_embeddings);
  // Open bounds: 0 would divide by 0 on a zero row, 1 would drown the signal.
  fields.ReadDouble("rms_norm_eps", 1e-30, 0.1, &config->rms_norm_eps);
  fields.ReadInt("linear_num_key_heads", 1, kMaxHeads,
                 &config->linear_num_key_heads);
  fields.ReadInt("linear_num_value_heads", 1, kMaxHeads,
                 &config->linear_num_value_heads);
  fields.ReadInt("linear_key_head_dim", 1, kMaxHeadDim,
                 &config->linear_key_head_dim);
  fields.ReadInt("linear_value_head_dim", 1, kMaxHeadDim,
                 &config->linear_value_head_dim);
  // At least 2: a convolution with one tap would have no tail to keep.
  fields.ReadInt("linear_conv_kernel_dim", 2, kMaxConvTaps,
                 &config->linear_conv_kernel_dim);
  fields.ReadInt("num_experts", 1, kMaxExperts, &config->num_experts);
  fields.ReadInt("num_experts_per_tok", 1, kMaxExperts,
                 &config->num_experts_per_tok);
  fields.ReadBool("norm_topk_prob", &config->norm_topk_prob);
  fields.ReadInt("moe_intermediate_size", 1, kMaxWidth,
                 &config->moe_intermediate_size);
  fields.ReadInt("shared_expert_intermediate_size", 1, kMaxWidth,
                 &config->shared_expert_intermediate_size);
  fields.ReadInt("intermediate_size", 1, kMaxWidth, &config->intermediate_size);
  fields.ReadBool("tie_word_embeddings", &config->tie_word_embeddings);
  fields.ReadInt("num_nextn_predict_layers", 0, 1,
                 &config->num_nextn_predict_layers);
  return fields.status();
}

absl::Status CheckDivides(const char* whole_name, int whole,
                          const char* part_name, int part) {
  if (whole % part == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      whole_name, " ", whole, " is not a multiple of ", part_name, " ", part));
}

absl::Status CheckSizesAgree(const ModelConfig& config) {
  SY_RETURN_IF_ERROR(
      CheckDivides("num_attention_heads", config.num_attention_heads,
                   "num_key_value_heads", config.num_key_value_heads));
  SY_RETURN_IF_ERROR(
      CheckDivides("linear_num_value_heads", config.linear_num_value_heads,
                   "linear_num_key_heads", config.linear_num_key_heads));
  if (config.num_experts_per_tok > config.num_experts) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_experts_per_tok ", config.num_experts_per_tok,
                     " is more than num_experts ", config.num_experts));
  }
  return absl::OkStatus();
}

// layer_types wins over full_attention_interval, as in transformers.
absl::Status ParseLayerTypes(const Json& root, ModelConfig* config) {
  const int layers = config->num_hidden_layers;
  JsonFields fields(root, "");
  const Json* types = fields.Find("layer_types");
  if (types == nullptr) {
    int interval = 4;
    fields.ReadInt("full_attention_interval", 1,
                   std::numeric_limits<int>::max(), &interval);
    SY_RETURN_IF_ERROR(fields.status());
    for (int i = 0; i < layers; ++i) {
      config->layer_types.push_back((int64_t{i} + 1) % interval == 0
                                        ? LayerType::kFullAttention
                                        : LayerType::kLinearAttention);
    }
    return absl::OkStatus();
  }
  if (!types->is_array() || types->size() != static_cast<size_t>(layers)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer_types must be a list of num_hidden_layers = ", layers,
        " names; it is ",
        types->is_array() ? absl::StrCat("a list of ", types->size())
                          : DescribeJson(*types)));
  }
  for (const Json& type : *types) {
    const std::string name = type.is_string() ? type.get<std::string>() : "";
    if (name != "linear_attention" && name != "full_attention") {
      return absl::InvalidArgumentError(absl::StrCat(
          "layer_types[", config->layer_types.size(), "] is ",
          DescribeJson(type),
          "; it must be \"linear_attention\" or \"full_attention\""));
    }
    config->layer_types.push_back(name == "full_attention"
                                      ? LayerType::kFullAttention
                                      : LayerType::kLinearAttention);
  }
  return absl::OkStatus();
}

// Layer i has experts unless mlp_only_layers names it or decoder_sparse_step
// steps over it.
absl::Status ParseMoeLayers(const Json& root, ModelConfig* config) {
  JsonFields fields(root, "");
  int64_t step = 1;
  std::vector<int64_t> dense;
  fields.ReadInt("decoder_sparse_step", 1, std::numeric_limits<int>::max(),
                 &step);
  fields.ReadIntOrList("mlp_only_layers", 0, config->num_hidden_layers - 1,
                       &dense);
  SY_RETURN_IF_ERROR(fields.status());
  config->is_moe.assign(config->num_hidden_layers, false);
  for (int i = 0; i < config->num_hidden_layers; ++i) {
    config->is_moe[i] = (int64_t{i} + 1) % step == 0 &&
                        std::find(dense.begin(), dense.end(), i) == dense.end();
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseObject(absl::string_view json_text) {
  // config.json is a few kilobytes; nothing in it is nested deeply.
  SY_ASSIGN_OR_RETURN(Json root, ParseJson(json_text, {.max_bytes = 16 << 20,
                                                       .max_depth = 32}));
  if (!root.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a JSON object but ", DescribeJson(root)));
  }
  return root;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json_text,
                                             QuantizationConfig quantization) {
  SY_ASSIGN_OR_RETURN(const Json root, ParseObject(json_text));
  ModelConfig config;
  SY_RETURN_IF_ERROR(CheckArchitecture(root));
  if (quantization == QuantizationConfig::kRefuse) {
    SY_RETURN_IF_ERROR(RefuseQuantization(root));
  }
  SY_RETURN_IF_ERROR(CheckUnsupported(root));
  SY_RETURN_IF_ERROR(ParseSizes(root, &config));
  SY_RETURN_IF_ERROR(CheckSizesAgree(config));
  SY_RETURN_IF_ERROR(ParseLayerTypes(root, &config));
  SY_RETURN_IF_ERROR(ParseMoeLayers(root, &config));
  SY_RETURN_IF_ERROR(ParseRope(root, &config));
  JsonFields fields(root, "");
  fields.ReadIntOrList("eos_token_id", 0, config.vocab_size - 1,
                       &config.eos_token_ids);
  SY_RETURN_IF_ERROR(fields.status());
  return config;
}

absl::StatusOr<GenerationConfig> ParseGenerationConfig(
    absl::string_view json_text) {
  SY_ASSIGN_OR_RETURN(const Json root, ParseObject(json_text));
  GenerationConfig config;
  JsonFields fields(root, "");
  fields.ReadBool("do_sample", &config.do_sample);
  fields.ReadDouble("temperature", 0, 100, &config.temperature);
  // top_p 0 would keep no token at all.
  fields.ReadDouble("top_p", 1e-9, 1, &config.top_p);
  // -1 is another spelling of "off".
  fields.ReadInt("top_k", -1, std::numeric_limits<int>::max(), &config.top_k);
  config.top_k = std::max(config.top_k, 0);
  fields.ReadDouble("min_p", 0, 1, &config.min_p);
  fields.ReadDouble("repetition_penalty", 1e-3, 1e3,
                    &config.repetition_penalty);
  fields.ReadIntOrList("eos_token_id", 0, kMaxVocab - 1, &config.eos_token_ids);
  SY_RETURN_IF_ERROR(fields.status());
  return config;
}

}  // namespace switchyard::model
