#include "attention_worker/layers/layer_weights.h"

#include <cstdint>
#include <utility>

#include "base/status_macros.h"
#include "kernels/math.h"
#include "model/weight_names.h"

namespace switchyard::attention_worker {
namespace {

using model::LayerType;
using model::ModelConfig;

absl::StatusOr<GatedAttentionWeights> FindGatedAttention(
    const std::string& prefix, WeightReader* reader) {
  const ModelConfig& config = reader->config();
  const int64_t hidden = config.hidden_size;
  const int64_t d = config.head_dim;
  const int64_t q_width = config.num_attention_heads * d;
  const int64_t kv_width = config.num_key_value_heads * d;
  GatedAttentionWeights w;
  SY_ASSIGN_OR_RETURN(
      w.q_proj, reader->Matrix(prefix + "q_proj.weight", 2 * q_width, hidden));
  SY_ASSIGN_OR_RETURN(
      w.k_proj, reader->Matrix(prefix + "k_proj.weight", kv_width, hidden));
  SY_ASSIGN_OR_RETURN(
      w.v_proj, reader->Matrix(prefix + "v_proj.weight", kv_width, hidden));
  SY_ASSIGN_OR_RETURN(
      w.o_proj, reader->Matrix(prefix + "o_proj.weight", hidden, q_width));
  SY_ASSIGN_OR_RETURN(w.q_norm, reader->Vector(prefix + "q_norm.weight", d));
  SY_ASSIGN_OR_RETURN(w.k_norm, reader->Vector(prefix + "k_norm.weight", d));
  return w;
}

absl::StatusOr<GatedDeltaNetWeights> FindGatedDeltaNet(
    const std::string& prefix, WeightReader* reader) {
  const ModelConfig& config = reader->config();
  const int64_t hidden = config.hidden_size;
  const int64_t nv = config.linear_num_value_heads;
  const int64_t k_width =
      int64_t{config.linear_num_key_heads} * config.linear_key_head_dim;
  const int64_t v_width = nv * config.linear_value_head_dim;
  GatedDeltaNetWeights w;
  SY_ASSIGN_OR_RETURN(w.in_proj_qkvz,
                      reader->Matrix(prefix + "in_proj_qkvz.weight",
                                     2 * k_width + 2 * v_width, hidden));
  SY_ASSIGN_OR_RETURN(w.in_proj_ba, reader->Matrix(prefix + "in_proj_ba.weight",
                                                   2 * nv, hidden));
  SY_ASSIGN_OR_RETURN(
      w.out_proj, reader->Matrix(prefix + "out_proj.weight", hidden, v_width));
  SY_ASSIGN_OR_RETURN(
      w.conv1d,
      reader->Vector(prefix + "conv1d.weight",
                     (2 * k_width + v_width) * config.linear_conv_kernel_dim));
  SY_ASSIGN_OR_RETURN(const std::vector<float> a_log,
                      reader->Vector(prefix + "A_log", nv));
  for (float a : a_log) w.decay_rate.push_back(kernels::Exp(a));
  SY_ASSIGN_OR_RETURN(w.dt_bias, reader->Vector(prefix + "dt_bias", nv));
  SY_ASSIGN_OR_RETURN(w.norm, reader->Vector(prefix + "norm.weight",
                                             config.linear_value_head_dim));
  return w;
}

absl::StatusOr<DenseMlpWeights> FindDenseMlp(const std::string& prefix,
                                             int64_t inner,
                                             WeightReader* reader) {
  const int64_t hidden = reader->config().hidden_size;
  DenseMlpWeights w;
  SY_ASSIGN_OR_RETURN(
      w.gate_proj, reader->Matrix(prefix + "gate_proj.weight", inner, hidden));
  SY_ASSIGN_OR_RETURN(w.up_proj,
                      reader->Matrix(prefix + "up_proj.weight", inner, hidden));
  SY_ASSIGN_OR_RETURN(
      w.down_proj, reader->Matrix(prefix + "down_proj.weight", hidden, inner));
  return w;
}

absl::StatusOr<MoeWeights> FindMoe(const std::string& prefix,
                                   WeightReader* reader) {
  const ModelConfig& config = reader->config();
  MoeWeights w;
  SY_ASSIGN_OR_RETURN(w.gate,
                      reader->Matrix(prefix + "gate.weight", config.num_experts,
                                     config.hidden_size));
  SY_ASSIGN_OR_RETURN(
      w.shared_expert,
      FindDenseMlp(prefix + "shared_expert.",
                   config.shared_expert_intermediate_size, reader));
  SY_ASSIGN_OR_RETURN(w.shared_expert_gate,
                      reader->Matrix(prefix + "shared_expert_gate.weight", 1,
                                     config.hidden_size));
  return w;
}

absl::StatusOr<DecoderLayerWeights> FindDecoderLayer(const std::string& prefix,
                                                     LayerType type,
                                                     bool is_moe,
                                                     WeightReader* reader) {
  const ModelConfig& config = reader->config();
  DecoderLayerWeights w;
  SY_ASSIGN_OR_RETURN(
      w.input_layernorm,
      reader->Vector(prefix + "input_layernorm.weight", config.hidden_size));
  SY_ASSIGN_OR_RETURN(w.post_attention_layernorm,
                      reader->Vector(prefix + "post_attention_layernorm.weight",
                                     config.hidden_size));
  if (type == LayerType::kFullAttention) {
    SY_ASSIGN_OR_RETURN(w.mixer,
                        FindGatedAttention(prefix + "self_attn.", reader));
  } else {
    SY_ASSIGN_OR_RETURN(w.mixer,
                        FindGatedDeltaNet(prefix + "linear_attn.", reader));
  }
  if (is_moe) {
    SY_ASSIGN_OR_RETURN(w.ffn, FindMoe(prefix + "mlp.", reader));
  } else {
    SY_ASSIGN_OR_RETURN(
        w.ffn, FindDenseMlp(prefix + "mlp.", config.intermediate_size, reader));
  }
  return w;
}

absl::StatusOr<kernels::WeightView> FindEmbedding(WeightReader* reader) {
  return reader->Matrix(model::kEmbeddingName, reader->config().vocab_size,
                        reader->config().hidden_size);
}

absl::StatusOr<kernels::WeightView> FindLmHead(WeightReader* reader) {
  if (reader->config().tie_word_embeddings) return FindEmbedding(reader);
  return reader->Matrix(model::kLmHeadName, reader->config().vocab_size,
                        reader->config().hidden_size);
}

}  // namespace

absl::StatusOr<ModelWeights> FindModelWeights(WeightReader* reader) {
  const ModelConfig& config = reader->config();
  ModelWeights w;
  SY_ASSIGN_OR_RETURN(w.embed_tokens, FindEmbedding(reader));
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    SY_ASSIGN_OR_RETURN(
        DecoderLayerWeights layer,
        FindDecoderLayer(model::LayerPrefix(config, i), config.layer_types[i],
                         config.is_moe[i], reader));
    w.layers.push_back(std::move(layer));
  }
  SY_ASSIGN_OR_RETURN(
      w.norm, reader->Vector(model::kFinalNormName, config.hidden_size));
  SY_ASSIGN_OR_RETURN(w.lm_head, FindLmHead(reader));
  return w;
}

absl::StatusOr<MtpWeights> FindMtpWeights(WeightReader* reader) {
  const ModelConfig& config = reader->config();
  const int64_t hidden = config.hidden_size;
  MtpWeights w;
  SY_ASSIGN_OR_RETURN(w.fc,
                      reader->Matrix("mtp.fc.weight", hidden, 2 * hidden));
  SY_ASSIGN_OR_RETURN(
      w.pre_fc_norm_embedding,
      reader->Vector("mtp.pre_fc_norm_embedding.weight", hidden));
  SY_ASSIGN_OR_RETURN(w.pre_fc_norm_hidden,
                      reader->Vector("mtp.pre_fc_norm_hidden.weight", hidden));
  SY_ASSIGN_OR_RETURN(w.norm, reader->Vector("mtp.norm.weight", hidden));
  SY_ASSIGN_OR_RETURN(
      w.layer,
      FindDecoderLayer(model::LayerPrefix(config, config.num_hidden_layers),
                       LayerType::kFullAttention,
                       /*is_moe=*/true, reader));
  return w;
}

}  // namespace switchyard::attention_worker
