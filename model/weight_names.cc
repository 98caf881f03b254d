#include "model/weight_names.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::model {
namespace {

// Visits with a common prefix.
class Visitor {
 public:
  Visitor(std::string prefix, WeightVisitor visit)
      : prefix_(std::move(prefix)), visit_(visit) {}

  absl::Status operator()(absl::string_view name,
                          std::initializer_list<int64_t> shape) const {
    return visit_(absl::StrCat(prefix_, name), shape);
  }

 private:
  const std::string prefix_;
  const WeightVisitor visit_;
};

absl::Status VisitFullAttention(const ModelConfig& c, const Visitor& visit) {
  const int64_t H = c.hidden_size;
  const int64_t query = int64_t{c.num_attention_heads} * c.head_dim;
  const int64_t kv = int64_t{c.num_key_value_heads} * c.head_dim;
  // Query and output gate, interleaved per head.
  SY_RETURN_IF_ERROR(visit("self_attn.q_proj.weight", {2 * query, H}));
  SY_RETURN_IF_ERROR(visit("self_attn.k_proj.weight", {kv, H}));
  SY_RETURN_IF_ERROR(visit("self_attn.v_proj.weight", {kv, H}));
  SY_RETURN_IF_ERROR(visit("self_attn.o_proj.weight", {H, query}));
  SY_RETURN_IF_ERROR(visit("self_attn.q_norm.weight", {c.head_dim}));
  return visit("self_attn.k_norm.weight", {c.head_dim});
}

absl::Status VisitLinearAttention(const ModelConfig& c, const Visitor& visit) {
  const int64_t H = c.hidden_size;
  const int64_t nv = c.linear_num_value_heads;
  const int64_t key = int64_t{c.linear_num_key_heads} * c.linear_key_head_dim;
  const int64_t value = nv * c.linear_value_head_dim;
  SY_RETURN_IF_ERROR(
      visit("linear_attn.in_proj_qkvz.weight", {2 * key + 2 * value, H}));
  SY_RETURN_IF_ERROR(visit("linear_attn.in_proj_ba.weight", {2 * nv, H}));
  SY_RETURN_IF_ERROR(visit("linear_attn.conv1d.weight",
                           {2 * key + value, 1, c.linear_conv_kernel_dim}));
  SY_RETURN_IF_ERROR(visit("linear_attn.A_log", {nv}));
  SY_RETURN_IF_ERROR(visit("linear_attn.dt_bias", {nv}));
  SY_RETURN_IF_ERROR(
      visit("linear_attn.norm.weight", {c.linear_value_head_dim}));
  return visit("linear_attn.out_proj.weight", {H, value});
}

absl::Status VisitMlp(absl::string_view prefix, int64_t H, int64_t width,
                      const Visitor& visit) {
  SY_RETURN_IF_ERROR(
      visit(absl::StrCat(prefix, "gate_proj.weight"), {width, H}));
  SY_RETURN_IF_ERROR(visit(absl::StrCat(prefix, "up_proj.weight"), {width, H}));
  return visit(absl::StrCat(prefix, "down_proj.weight"), {H, width});
}

// A layer but for its routed experts.
absl::Status VisitLayer(const ModelConfig& c, LayerType type, bool moe,
                        const Visitor& visit) {
  const int64_t H = c.hidden_size;
  SY_RETURN_IF_ERROR(visit("input_layernorm.weight", {H}));
  SY_RETURN_IF_ERROR(visit("post_attention_layernorm.weight", {H}));
  SY_RETURN_IF_ERROR(type == LayerType::kFullAttention
                         ? VisitFullAttention(c, visit)
                         : VisitLinearAttention(c, visit));
  if (!moe) return VisitMlp("mlp.", H, c.intermediate_size, visit);
  SY_RETURN_IF_ERROR(visit("mlp.gate.weight", {c.num_experts, H}));
  SY_RETURN_IF_ERROR(visit("mlp.shared_expert_gate.weight", {1, H}));
  return VisitMlp("mlp.shared_expert.", H, c.shared_expert_intermediate_size,
                  visit);
}

}  // namespace

std::string LayerPrefix(const ModelConfig& config, int layer) {
  SY_CHECK(layer >= 0 && layer <= config.num_hidden_layers);
  return layer == config.num_hidden_layers
             ? "mtp.layers.0."
             : absl::StrCat("model.layers.", layer, ".");
}

ExpertNames SeparateExpertNames(const ModelConfig& config, int layer,
                                int expert) {
  const std::string prefix =
      absl::StrCat(LayerPrefix(config, layer), "mlp.experts.", expert, ".");
  return {absl::StrCat(prefix, "gate_proj.weight"),
          absl::StrCat(prefix, "up_proj.weight"),
          absl::StrCat(prefix, "down_proj.weight")};
}

std::string FusedGateUpName(const ModelConfig& config, int layer) {
  return absl::StrCat(LayerPrefix(config, layer), "mlp.experts.gate_up_proj");
}

std::string FusedDownName(const ModelConfig& config, int layer) {
  return absl::StrCat(LayerPrefix(config, layer), "mlp.experts.down_proj");
}

absl::Status ForEachNonExpertWeight(const ModelConfig& config, bool with_mtp,
                                    WeightVisitor visit) {
  const int64_t H = config.hidden_size;
  const Visitor top("", visit);
  SY_RETURN_IF_ERROR(top(kEmbeddingName, {config.vocab_size, H}));
  SY_RETURN_IF_ERROR(top(kFinalNormName, {H}));
  if (!config.tie_word_embeddings) {
    SY_RETURN_IF_ERROR(top(kLmHeadName, {config.vocab_size, H}));
  }
  for (int i = 0; i < config.num_hidden_layers; ++i) {
    SY_RETURN_IF_ERROR(VisitLayer(config, config.layer_types[i],
                                  config.is_moe[i],
                                  Visitor(LayerPrefix(config, i), visit)));
  }
  if (!with_mtp) return absl::OkStatus();
  SY_RETURN_IF_ERROR(top(kMtpFcName, {H, 2 * H}));
  SY_RETURN_IF_ERROR(top("mtp.pre_fc_norm_embedding.weight", {H}));
  SY_RETURN_IF_ERROR(top("mtp.pre_fc_norm_hidden.weight", {H}));
  SY_RETURN_IF_ERROR(top("mtp.norm.weight", {H}));
  return VisitLayer(
      config, LayerType::kFullAttention, /*moe=*/true,
      Visitor(LayerPrefix(config, config.num_hidden_layers), visit));
}

absl::Status ForEachExpertWeight(const ModelConfig& config, int layer,
                                 ExpertForm form, WeightVisitor visit) {
  const int64_t H = config.hidden_size;
  const int64_t I = config.moe_intermediate_size;
  const int64_t E = config.num_experts;
  if (form == ExpertForm::kFused) {
    SY_RETURN_IF_ERROR(visit(FusedGateUpName(config, layer), {E, 2 * I, H}));
    return visit(FusedDownName(config, layer), {E, H, I});
  }
  for (int e = 0; e < config.num_experts; ++e) {
    const ExpertNames names = SeparateExpertNames(config, layer, e);
    SY_RETURN_IF_ERROR(visit(names.gate_proj, {I, H}));
    SY_RETURN_IF_ERROR(visit(names.up_proj, {I, H}));
    SY_RETURN_IF_ERROR(visit(names.down_proj, {H, I}));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::model
