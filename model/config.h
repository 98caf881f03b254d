// What a Qwen3-Next checkpoint says about itself: config.json and
// generation_config.json as values. Reads files, computes nothing.

#ifndef SWITCHYARD_MODEL_CONFIG_H_
#define SWITCHYARD_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::model {

enum class LayerType { kLinearAttention, kFullAttention };

// Rotary position embedding (Su et al. 2021) and its YaRN scaling (Peng et al.
// 2023), as HF's rope_parameters / rope_scaling.
struct RopeParameters {
  double theta = 10000;
  double partial_rotary_factor = 0.25;
  bool yarn = false;
  // The rest counts only with yarn.
  double factor = 1;
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;
  double attention_factor = 0;  // on cos and sin; always set (> 0) with yarn
};

// Names are Hugging Face's. The letters are those of every shape comment in
// this repository; the numbers are Qwen3-Next-80B-A3B's.
struct ModelConfig {
  int64_t vocab_size = 0;              // V   151936
  int64_t hidden_size = 0;             // H   2048
  int num_hidden_layers = 0;           // L   48, without the MTP layer
  std::vector<LayerType> layer_types;  // [L]
  int num_attention_heads = 0;         // 16
  int num_key_value_heads = 0;         // 2
  int head_dim = 0;                    // 256
  RopeParameters rope;
  int64_t max_position_embeddings = 0;  // 262144 (YaRN: factor times original)
  double rms_norm_eps = 1e-6;
  int linear_num_key_heads = 0;    // nk  16
  int linear_num_value_heads = 0;  // nv  32; nv / nk value heads a key head
  int linear_key_head_dim = 0;     // dk  128
  int linear_value_head_dim = 0;   // dv  128
  int linear_conv_kernel_dim = 0;  // 4
  int num_experts = 0;             // E   512, routed
  int num_experts_per_tok = 0;     // K   10
  bool norm_topk_prob = true;
  int64_t moe_intermediate_size = 0;            // I   512
  int64_t shared_expert_intermediate_size = 0;  // 512
  int64_t intermediate_size = 0;                // of dense layers
  std::vector<bool> is_moe;                     // [L]; false: a dense MLP
  bool tie_word_embeddings = false;
  std::vector<int64_t> eos_token_ids;  // config.json's; may be empty
  int num_nextn_predict_layers = 0;    // 0 or 1; what config.json says
  int rotary_dim() const {
    return static_cast<int>(head_dim * rope.partial_rotary_factor);
  }
};

// Defaults for requests that leave a sampling parameter out.
struct GenerationConfig {
  bool do_sample = true;  // false: temperature defaults to 0 (greedy)
  double temperature = 1.0;
  double top_p = 1.0;
  int top_k = 0;  // 0: off
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  std::vector<int64_t> eos_token_ids;  // empty: config.json's count
};

// What to make of config.json's quantization_config, which says that tensors
// are not what their names say: refuse it, or leave it to who asks (the
// converter; a converted checkpoint, whose manifest counts instead).
enum class QuantizationConfig { kRefuse, kIgnore };

// Both spellings of everything: layer_types or full_attention_interval,
// rope_scaling (type or rope_type) or rope_parameters. dtype and torch_dtype
// are not read: each tensor's own dtype counts. What is absent or null has the
// default of transformers' Qwen3NextConfig, but for vocab_size, hidden_size and
// num_hidden_layers, which must be there.
// INVALID_ARGUMENT: not JSON, another architecture (names what it found and
// what is served), a missing or contradictory value, attention_bias true, an
// unsupported rope_type or hidden_act, sizes out of range.
absl::StatusOr<ModelConfig> ParseModelConfig(
    absl::string_view json_text,
    QuantizationConfig quantization = QuantizationConfig::kRefuse);

// What is absent or null has GenerationConfig's default. top_k -1 is 0, "off".
absl::StatusOr<GenerationConfig> ParseGenerationConfig(
    absl::string_view json_text);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONFIG_H_
