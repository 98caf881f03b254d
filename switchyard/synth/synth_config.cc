#include "switchyard/synth/synth_config.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/config.h"

namespace switchyard {
namespace {

// Qwen/Qwen3-Next-80B-A3B-Instruct's, but for what says nothing of its weights.
constexpr char kConfig80B[] = R"({
  "architectures": ["Qwen3NextForCausalLM"],
  "model_type": "qwen3_next",
  "vocab_size": 151936,
  "hidden_size": 2048,
  "num_hidden_layers": 48,
  "full_attention_interval": 4,
  "num_attention_heads": 16,
  "num_key_value_heads": 2,
  "head_dim": 256,
  "partial_rotary_factor": 0.25,
  "rope_theta": 10000000,
  "rope_scaling": null,
  "attention_bias": false,
  "attention_dropout": 0.0,
  "hidden_act": "silu",
  "rms_norm_eps": 1e-06,
  "linear_num_key_heads": 16,
  "linear_num_value_heads": 32,
  "linear_key_head_dim": 128,
  "linear_value_head_dim": 128,
  "linear_conv_kernel_dim": 4,
  "num_experts": 512,
  "num_experts_per_tok": 10,
  "moe_intermediate_size": 512,
  "shared_expert_intermediate_size": 512,
  "intermediate_size": 5120,
  "decoder_sparse_step": 1,
  "mlp_only_layers": [],
  "norm_topk_prob": true,
  "output_router_logits": false,
  "router_aux_loss_coef": 0.001,
  "max_position_embeddings": 262144,
  "initializer_range": 0.02,
  "use_cache": true,
  "tie_word_embeddings": false,
  "use_sliding_window": false,
  "torch_dtype": "bfloat16"
})";

absl::Status Override(absl::string_view assignment, Json* config) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(assignment, absl::MaxSplits('=', 1));
  const absl::StatusOr<Json> value = ParseJson(parts.second);
  if (parts.first.empty() || !value.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--set: '", assignment,
                     "' is not key=value with a value in JSON's spelling"));
  }
  (*config)[std::string(parts.first)] = *value;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> SynthConfig(absl::string_view base_json,
                                        absl::string_view overrides,
                                        int num_layers) {
  SY_ASSIGN_OR_RETURN(Json config,
                      ParseJson(base_json.empty() ? kConfig80B : base_json));
  if (!config.is_object()) {
    return absl::InvalidArgumentError("the config is no JSON object");
  }
  // The weights are bf16, whatever those of the model it came from are.
  config.erase("quantization_config");
  for (const absl::string_view assignment :
       absl::StrSplit(overrides, ',', absl::SkipWhitespace())) {
    SY_RETURN_IF_ERROR(Override(assignment, &config));
  }
  if (num_layers > 0) config["num_hidden_layers"] = num_layers;
  const auto types = config.find("layer_types");
  const auto layers = config.find("num_hidden_layers");
  if (types != config.end() && types->is_array() && layers != config.end() &&
      layers->is_number_integer() && *layers > 0) {
    const size_t count = layers->get<size_t>();
    if (types->size() > count) {
      types->erase(types->begin() + static_cast<std::ptrdiff_t>(count),
                   types->end());
    } else if (types->size() < count) {
      config.erase("layer_types");
    }
  }
  std::string text = config.dump(2);
  SY_RETURN_IF_ERROR(model::ParseModelConfig(text).status());
  return text;
}

}  // namespace switchyard
