#include "attention_worker/state/state_shape.h"

namespace switchyard::attention_worker {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

}  // namespace

StateShape::StateShape(const model::ModelConfig& config, int64_t max_drafts,
                       kernels::KvDType kv_dtype)
    : max_draft_tokens(max_drafts),
      kv{.dtype = kv_dtype,
         .num_kv_heads = config.num_key_value_heads,
         .head_dim = config.head_dim},
      recurrent_floats(int64_t{config.linear_num_value_heads} *
                       config.linear_key_head_dim *
                       config.linear_value_head_dim),
      conv_channels(2 * int64_t{config.linear_num_key_heads} *
                        config.linear_key_head_dim +
                    int64_t{config.linear_num_value_heads} *
                        config.linear_value_head_dim),
      conv_floats((config.linear_conv_kernel_dim - 1) * conv_channels),
      gate_floats(2 * int64_t{config.linear_num_value_heads}),
      hidden_floats(config.hidden_size) {
  for (model::LayerType type : config.layer_types) {
    ++(type == model::LayerType::kFullAttention ? num_full_layers
                                                : num_linear_layers);
  }
}

int64_t StateShape::FixedFloats() const {
  return HiddenInFixed() + hidden_floats;
}

int64_t StateShape::PageFloats() const { return PageBytes() / kFloatBytes; }

int64_t StateShape::DraftFloats() const {
  return LayerInDrafts(num_linear_layers);
}

int64_t StateShape::FixedBytes() const { return FixedFloats() * kFloatBytes; }

int64_t StateShape::PageBytes() const {
  return num_kv_layers() * kv.LayerBytes();
}

int64_t StateShape::DraftBytes() const { return DraftFloats() * kFloatBytes; }

}  // namespace switchyard::attention_worker
