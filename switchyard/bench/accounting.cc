#include "switchyard/bench/accounting.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "attention_worker/state/sequence_state.h"
#include "base/status_macros.h"
#include "kernels/quantized.h"
#include "model/weight_names.h"

namespace switchyard::bench {
namespace {

using attention_worker::StateShape;
using attention_worker::StepPart;
using kernels::DType;

constexpr double kFloatBytes = 4;
// Multiply-adds of one step of the delta rule, for each float of its state:
// S^T k, the update, S^T q.
constexpr double kRecurrenceMultiplyAdds = 3;

// The part that reads the tensor; kOther for norms and other small vectors.
StepPart PartOf(absl::string_view name) {
  if (absl::StrContains(name, ".shared_expert")) return StepPart::kSharedExpert;
  if (absl::EndsWith(name, ".mlp.gate.weight")) return StepPart::kGate;
  if (absl::EndsWith(name, "conv1d.weight")) return StepPart::kConvolution;
  if (absl::EndsWith(name, "_proj.weight") ||
      absl::StrContains(name, ".in_proj_")) {
    return StepPart::kProjections;
  }
  return StepPart::kOther;
}

double RoomFor(double need, double rate) { return rate > 0 ? need / rate : 0; }

}  // namespace

Cost& Cost::operator+=(const Cost& other) {
  weight_bytes += other.weight_bytes;
  state_bytes += other.state_bytes;
  integer_operations += other.integer_operations;
  float_operations += other.float_operations;
  bf16_operations += other.bf16_operations;
  return *this;
}

Cost Total(const StepCost& cost) {
  Cost total;
  for (const Cost& part : cost) total += part;
  return total;
}

double RooflineSeconds(const StepCost& cost, const MachineLimits& limits) {
  double seconds = 0;
  for (const Cost& part : cost) {
    seconds +=
        std::max(RoomFor(part.bytes(), limits.read_bytes),
                 RoomFor(part.integer_operations, limits.integer_operations) +
                     RoomFor(part.float_operations, limits.float_operations) +
                     RoomFor(part.bf16_operations, limits.bf16_operations));
  }
  return seconds;
}

double ExpectedDistinctExperts(const model::ModelConfig& config,
                               int64_t tokens) {
  const auto layers = static_cast<double>(
      std::count(config.is_moe.begin(), config.is_moe.end(), true));
  if (layers == 0) return 0;
  const double experts = config.num_experts;
  const double missed = 1 - config.num_experts_per_tok / experts;
  return layers * experts * (1 - std::pow(missed, static_cast<double>(tokens)));
}

absl::StatusOr<Accounting> Accounting::ForCheckpoint(
    const model::Checkpoint& checkpoint, kernels::KvDType kv_dtype) {
  return ForConfig(
      checkpoint.config(), checkpoint.expert_dtype(),
      [&](absl::string_view name) -> absl::StatusOr<DType> {
        SY_ASSIGN_OR_RETURN(const kernels::WeightView view,
                            checkpoint.Find(name));
        return view.dtype;
      },
      kv_dtype);
}

absl::StatusOr<Accounting> Accounting::ForConfig(
    const model::ModelConfig& config, DType expert_dtype, DTypeOf dtype_of,
    kernels::KvDType kv_dtype) {
  Accounting accounting;
  accounting.kv_dtype_ = kv_dtype;
  accounting.config_ = config;
  accounting.expert_dtype_ = expert_dtype;
  const auto visit = [&](const std::string& name,
                         absl::Span<const int64_t> shape) -> absl::Status {
    if (name == model::kEmbeddingName || name == model::kLmHeadName) {
      return absl::OkStatus();
    }
    const int64_t rows = shape.size() > 1 ? shape[0] : 1;
    int64_t cols = 1;
    for (size_t i = shape.size() > 1 ? 1 : 0; i < shape.size(); ++i) {
      cols *= shape[i];
    }
    const StepPart part = PartOf(name);
    // Vectors are kept as floats, and multiplied elementwise.
    if (part == StepPart::kOther || part == StepPart::kConvolution) {
      accounting.dense_[static_cast<int>(part)].bytes +=
          kFloatBytes * static_cast<double>(rows * cols);
      return absl::OkStatus();
    }
    SY_ASSIGN_OR_RETURN(const DType dtype, dtype_of(name));
    accounting.AddMatrix(part, dtype, rows, cols);
    return absl::OkStatus();
  };
  SY_RETURN_IF_ERROR(
      model::ForEachNonExpertWeight(config, /*with_mtp=*/false, visit));

  SY_ASSIGN_OR_RETURN(const DType embedding, dtype_of(model::kEmbeddingName));
  absl::StatusOr<DType> lm_head = dtype_of(model::kLmHeadName);
  if (absl::IsNotFound(lm_head.status())) lm_head = embedding;
  SY_RETURN_IF_ERROR(lm_head.status());
  accounting.AddMatrix(StepPart::kLmHead, *lm_head, config.vocab_size,
                       config.hidden_size);
  accounting.embedding_row_bytes_ = static_cast<double>(
      kernels::WeightBytes(embedding, 1, config.hidden_size));

  const int64_t inner = config.moe_intermediate_size;
  accounting.expert_weights_ =
      static_cast<double>(3 * inner * config.hidden_size);
  accounting.expert_bytes_ = static_cast<double>(
      2 * kernels::WeightBytes(expert_dtype, inner, config.hidden_size) +
      kernels::WeightBytes(expert_dtype, config.hidden_size, inner));
  accounting.moe_layers_ =
      std::count(config.is_moe.begin(), config.is_moe.end(), true);
  accounting.full_layers_ =
      std::count(config.layer_types.begin(), config.layer_types.end(),
                 model::LayerType::kFullAttention);
  accounting.linear_layers_ =
      static_cast<int64_t>(config.layer_types.size()) - accounting.full_layers_;
  accounting.active_weights_ += accounting.moe_layers_ *
                                config.num_experts_per_tok * 3 * inner *
                                config.hidden_size;
  return accounting;
}

void Accounting::AddMatrix(StepPart part, DType dtype, int64_t rows,
                           int64_t cols) {
  Dense& dense = dense_[static_cast<int>(part)];
  dense.bytes += static_cast<double>(kernels::WeightBytes(dtype, rows, cols));
  const auto weights = static_cast<double>(rows * cols);
  switch (RowFormatOf(dtype)) {
    case kernels::RowFormat::kI8Group32:
      dense.quantised_weights += weights;
      break;
    case kernels::RowFormat::kBF16:
      dense.bf16_weights += weights;
      break;
    case kernels::RowFormat::kF32:
      dense.other_weights += weights;
      break;
  }
  active_weights_ += rows * cols;
}

double Accounting::active_bytes() const {
  double bytes =
      static_cast<double>(moe_layers_ * config_.num_experts_per_tok) *
      expert_bytes_;
  for (const Dense& dense : dense_) bytes += dense.bytes;
  return bytes;
}

StepCost Accounting::CostOf(const StepLoad& load) const {
  const StateShape shape(config_, /*max_draft_tokens=*/0, kv_dtype_);
  double tokens = 0;
  double keys_read = 0;  // by all queries, of one full layer
  double keys_held = 0;
  for (const SequenceLoad& sequence : load.sequences) {
    const auto n = static_cast<double>(sequence.tokens);
    const auto context = static_cast<double>(sequence.context);
    tokens += n;
    keys_read += n * context + n * (n + 1) / 2;
    keys_held += context + n;
  }
  const auto sequences = static_cast<double>(load.sequences.size());
  StepCost cost;
  for (int part = 0; part < attention_worker::kNumStepParts; ++part) {
    const bool is_lm_head = part == static_cast<int>(StepPart::kLmHead);
    const auto rows =
        is_lm_head ? static_cast<double>(load.logits_rows) : tokens;
    if (rows == 0) continue;
    const Dense& dense = dense_[part];
    cost[part].weight_bytes = dense.bytes;
    cost[part].integer_operations = 2 * rows * dense.quantised_weights;
    cost[part].float_operations = 2 * rows * dense.other_weights;
    cost[part].bf16_operations = 2 * rows * dense.bf16_weights;
  }
  const auto part = [&cost](StepPart p) -> Cost& {
    return cost[static_cast<int>(p)];
  };
  part(StepPart::kOther).weight_bytes += tokens * embedding_row_bytes_;

  Cost& experts = part(StepPart::kRoutedExperts);
  experts.weight_bytes = load.distinct_experts * expert_bytes_;
  const double expert_operations =
      2 * tokens *
      static_cast<double>(moe_layers_ * config_.num_experts_per_tok) *
      expert_weights_;
  switch (RowFormatOf(expert_dtype_)) {
    case kernels::RowFormat::kI8Group32:
      experts.integer_operations = expert_operations;
      break;
    case kernels::RowFormat::kBF16:
      experts.bf16_operations = expert_operations;
      break;
    case kernels::RowFormat::kF32:
      experts.float_operations = expert_operations;
      break;
  }

  const auto linear = static_cast<double>(linear_layers_);
  const auto full = static_cast<double>(full_layers_);
  part(StepPart::kRecurrence).state_bytes =
      sequences * linear * kFloatBytes *
      static_cast<double>(shape.recurrent_floats);
  part(StepPart::kRecurrence).float_operations =
      2 * kRecurrenceMultiplyAdds * tokens * linear *
      static_cast<double>(shape.recurrent_floats);
  part(StepPart::kConvolution).state_bytes =
      sequences * linear * kFloatBytes * static_cast<double>(shape.conv_floats);
  part(StepPart::kAttention).state_bytes =
      keys_held * static_cast<double>(shape.BytesPerToken());
  part(StepPart::kAttention).float_operations =
      2.0 * 2 * keys_read * full *
      static_cast<double>(config_.num_attention_heads * config_.head_dim);
  return cost;
}

}  // namespace switchyard::bench
