#include "attention_worker/state/sequence_state.h"

#include <cstdio>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

int64_t FixedFloats(const StateShape& shape) {
  return shape.num_linear_layers * (shape.recurrent_floats + shape.conv_floats);
}

absl::StatusOr<ReservedFloats> ReserveState(const StateShape& shape,
                                            int64_t max_tokens) {
  SY_CHECK(max_tokens >= 0);
  const int64_t fixed = FixedFloats(shape);
  return ReservedFloats::Create(
      fixed + 2 * shape.num_full_layers * shape.kv_width * max_tokens, fixed);
}

ReservedFloats ReserveStateOrDie(const StateShape& shape, int64_t max_tokens) {
  absl::StatusOr<ReservedFloats> memory = ReserveState(shape, max_tokens);
  if (!memory.ok()) {
    std::fprintf(stderr, "%s\n", memory.status().ToString().c_str());
  }
  SY_CHECK(memory.ok());
  return *std::move(memory);
}

}  // namespace

StateShape::StateShape(const model::ModelConfig& config)
    : kv_width(int64_t{config.num_key_value_heads} * config.head_dim),
      recurrent_floats(int64_t{config.linear_num_value_heads} *
                       config.linear_key_head_dim *
                       config.linear_value_head_dim),
      conv_floats((config.linear_conv_kernel_dim - 1) *
                  (2 * int64_t{config.linear_num_key_heads} *
                       config.linear_key_head_dim +
                   int64_t{config.linear_num_value_heads} *
                       config.linear_value_head_dim)) {
  for (model::LayerType type : config.layer_types) {
    ++(type == model::LayerType::kFullAttention ? num_full_layers
                                                : num_linear_layers);
  }
}

int64_t StateShape::FixedBytes() const {
  return FixedFloats(*this) * kFloatBytes;
}

int64_t StateShape::BytesPerToken() const {
  return 2 * num_full_layers * kv_width * kFloatBytes;
}

int64_t StateShape::BytesFor(int64_t tokens) const {
  return FixedBytes() + tokens * BytesPerToken();
}

absl::StatusOr<std::unique_ptr<SequenceState>> SequenceState::Create(
    const StateShape& shape, int64_t max_tokens) {
  SY_ASSIGN_OR_RETURN(ReservedFloats memory, ReserveState(shape, max_tokens));
  return std::unique_ptr<SequenceState>(
      new SequenceState(shape, max_tokens, std::move(memory)));
}

SequenceState::SequenceState(const StateShape& shape, int64_t max_tokens)
    : SequenceState(shape, max_tokens, ReserveStateOrDie(shape, max_tokens)) {}

SequenceState::SequenceState(const StateShape& shape, int64_t max_tokens,
                             ReservedFloats memory)
    : shape_(shape), max_tokens_(max_tokens), memory_(std::move(memory)) {}

float* SequenceState::keys(int index) {
  SY_CHECK(index >= 0 && index < shape_.num_full_layers);
  return memory_.data() + FixedFloats(shape_) +
         2 * index * shape_.kv_width * max_tokens_;
}

float* SequenceState::values(int index) {
  return keys(index) + shape_.kv_width * max_tokens_;
}

float* SequenceState::recurrent(int index) {
  SY_CHECK(index >= 0 && index < shape_.num_linear_layers);
  return memory_.data() + index * shape_.recurrent_floats;
}

float* SequenceState::conv_tail(int index) {
  SY_CHECK(index >= 0 && index < shape_.num_linear_layers);
  return memory_.data() + shape_.num_linear_layers * shape_.recurrent_floats +
         index * shape_.conv_floats;
}

absl::StatusOr<std::unique_ptr<MtpState>> MtpState::Create(
    const StateShape& shape, int64_t max_tokens) {
  SY_CHECK(max_tokens >= 0);
  SY_ASSIGN_OR_RETURN(ReservedFloats memory,
                      ReservedFloats::Create(2 * shape.kv_width * max_tokens,
                                             /*dense_floats=*/0));
  return std::unique_ptr<MtpState>(new MtpState(max_tokens, std::move(memory)));
}

MtpState::MtpState(int64_t max_tokens, ReservedFloats memory)
    : max_tokens_(max_tokens), memory_(std::move(memory)) {}

}  // namespace switchyard::attention_worker
