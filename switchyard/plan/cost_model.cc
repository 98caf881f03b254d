#include "switchyard/plan/cost_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "attention_worker/state/state_shape.h"
#include "base/status_macros.h"
#include "fabric/wire/expert_terms.h"
#include "kernels/matrix.h"
#include "kernels/quantized.h"
#include "model/weight_names.h"
#include "switchyard/plan/imbalance.h"

namespace switchyard::plan {
namespace {

using attention_worker::StateShape;
using attention_worker::StepPart;
using kernels::DType;

constexpr double kMib = 1024.0 * 1024;
// docs/benchmarks.md, "Memory": the program and what its allocator keeps, and
// what an attention worker with remote experts holds after chunks of 1,024.
constexpr double kProgramBytes = 90 * kMib;
constexpr double kChunkScratchBytes = 410 * kMib;
// An expert worker's queue, as --max-queue-mib bounds it.
constexpr double kQueueBytes = 512 * kMib;
// Beside running sequences: prefixes' states, so that a conversation's next
// turn does not read it all again. As much again as a quarter of those running.
constexpr double kSnapshotShare = 0.25;
// What no member's share of a layer exceeds (fabric/placement).
constexpr double kUnevenShare = 1.08;
// The shares of what memory gives and of what units can do at best that steps
// reach, fitted to what scripts/check_plan measured (docs/decisions/0094): a
// token alone takes 82 to 100 % of its roofline, which is memory's; prompts 41
// to 52 % of the 8-bit products' peak (docs/benchmarks.md).
constexpr double kReadShare = 0.95;
constexpr double kComputeShare = 0.5;

DType DTypeOf(model::WeightFormat format) {
  switch (format) {
    case model::WeightFormat::kQ8:
      return DType::kQ8;
    case model::WeightFormat::kQ4:
      return DType::kQ4;
    case model::WeightFormat::kBF16Dot:
      return DType::kBF16Dot;
    case model::WeightFormat::kSource:
    case model::WeightFormat::kBF16:
      break;
  }
  return DType::kBF16;
}

bench::Cost& Of(bench::StepCost& cost, StepPart part) {
  return cost[static_cast<int>(part)];
}

double Seconds(const bench::StepCost& cost,
               const bench::MachineLimits& limits) {
  return bench::RooflineSeconds(
      cost, {.read_bytes = kReadShare * limits.read_bytes,
             .integer_operations = kComputeShare * limits.integer_operations,
             .float_operations = kComputeShare * limits.float_operations,
             .bf16_operations = kComputeShare * limits.bf16_operations});
}

double Seconds(const bench::Cost& cost, const bench::MachineLimits& limits) {
  bench::StepCost one{};
  one[0] = cost;
  return Seconds(one, limits);
}

// Everything in one process.
double SecondsInProcess(const bench::StepCost& cost,
                        const bench::MachineLimits& limits) {
  return Seconds(cost, limits);
}

bench::StepLoad DecodeLoad(const model::ModelConfig& config, int64_t sequences,
                           int64_t context) {
  bench::StepLoad load;
  load.sequences.assign(sequences, {.context = context, .tokens = 1});
  load.logits_rows = sequences;
  load.distinct_experts = bench::ExpectedDistinctExperts(config, sequences);
  return load;
}

bench::StepLoad PrefillLoad(const model::ModelConfig& config, int64_t tokens) {
  return {.sequences = {{.context = 0, .tokens = tokens}},
          .logits_rows = 1,
          .distinct_experts = bench::ExpectedDistinctExperts(config, tokens)};
}

int64_t Tokens(const bench::StepLoad& load) {
  int64_t tokens = 0;
  for (const bench::SequenceLoad& s : load.sequences) tokens += s.tokens;
  return tokens;
}

}  // namespace

std::string StepTime::Bound() const {
  const std::pair<double, const char*> parts[] = {
      {attention, "attention workers' memory and compute"},
      {experts, "expert workers' memory and compute"},
      {wire, "bytes on the network"},
      {dispatch, "latency of dispatches, one after the other"},
      {queueing, "expert workers busy with others' rows"}};
  return std::max_element(std::begin(parts), std::end(parts))->second;
}

double Sum(const std::vector<MemoryPart>& parts) {
  double sum = 0;
  for (const MemoryPart& part : parts) sum += part.bytes;
  return sum;
}

CostModel::CostModel(const model::ModelConfig& config,
                     bench::Accounting accounting, kernels::KvDType kv_dtype)
    : config_(config),
      accounting_(std::move(accounting)),
      kv_dtype_(kv_dtype) {}

absl::StatusOr<CostModel> CostModel::Create(
    const model::ModelConfig& model_config, const model::WeightFormats& formats,
    kernels::KvDType kv_dtype) {
  const auto dtype_of = [&](absl::string_view name) -> absl::StatusOr<DType> {
    if (name == model::kLmHeadName && model_config.tie_word_embeddings) {
      return absl::NotFoundError("tied");
    }
    const model::TensorKind kind = model::KindOf(name);
    return kind == model::TensorKind::kOther
               ? DType::kBF16
               : DTypeOf(model::FormatOf(formats, kind));
  };
  const DType expert_dtype = DTypeOf(formats.experts);
  SY_ASSIGN_OR_RETURN(bench::Accounting accounting,
                      bench::Accounting::ForConfig(model_config, expert_dtype,
                                                   dtype_of, kv_dtype));
  CostModel result(model_config, std::move(accounting), kv_dtype);
  SY_RETURN_IF_ERROR(model::ForEachNonExpertWeight(
      model_config, /*with_mtp=*/false,
      [&](const std::string& name,
          absl::Span<const int64_t> shape) -> absl::Status {
        int64_t cols = 1;
        for (size_t i = 1; i < shape.size(); ++i) cols *= shape[i];
        SY_ASSIGN_OR_RETURN(const DType dtype, dtype_of(name));
        result.dense_bytes_ +=
            static_cast<double>(kernels::WeightBytes(dtype, shape[0], cols));
        return absl::OkStatus();
      }));
  const int64_t inner = model_config.moe_intermediate_size;
  const int64_t hidden = model_config.hidden_size;
  result.moe_layers_ =
      std::count(model_config.is_moe.begin(), model_config.is_moe.end(), true);
  result.expert_bytes_ =
      static_cast<double>(result.moe_layers_ * model_config.num_experts) *
      static_cast<double>(
          2 * kernels::WeightBytes(expert_dtype, inner, hidden) +
          kernels::WeightBytes(expert_dtype, hidden, inner));
  result.row_bytes_ = static_cast<double>(fabric::ActivationRowBytes(
      fabric::ActivationFormatOf(fabric::WeightFormatOf(expert_dtype)),
      hidden));
  result.output_bytes_ = static_cast<double>(4 * hidden);
  return result;
}

double CostModel::OneExpertBytes() const {
  const int64_t experts = moe_layers_ * config_.num_experts;
  return experts == 0 ? 0 : expert_bytes_ / static_cast<double>(experts);
}

double CostModel::SequenceBytes(int64_t context) const {
  const StateShape shape(config_, /*max_draft_tokens=*/0, kv_dtype_);
  return static_cast<double>(shape.FixedBytes() +
                             StateShape::PagesFor(context) * shape.PageBytes());
}

std::vector<MemoryPart> CostModel::AttentionWorkerMemory(
    int64_t sequences, int64_t context) const {
  const double states = static_cast<double>(sequences) * SequenceBytes(context);
  return {{"weights but routed experts", dense_bytes_},
          {"states of running sequences", states},
          {"states of prefixes", kSnapshotShare * states},
          {"scratch of chunks of 1,024 tokens", kChunkScratchBytes},
          {"program", kProgramBytes}};
}

std::vector<MemoryPart> CostModel::ExpertWorkerMemory(
    const Shape& shape) const {
  const double share = expert_bytes_ * shape.copies / shape.expert_workers;
  return {{"experts", share},
          {"uneven shares", share * (kUnevenShare - 1)},
          {"queue", kQueueBytes},
          {"program", kProgramBytes}};
}

StepTime CostModel::DecodeStep(const Shape& shape, const Node& node,
                               const Network& network, int64_t users,
                               int64_t context) const {
  const int64_t sequences =
      (users + shape.attention_workers - 1) / shape.attention_workers;
  return Step(shape, node, network, DecodeLoad(config_, sequences, context));
}

StepTime CostModel::PrefillStep(const Shape& shape, const Node& node,
                                const Network& network, int64_t tokens) const {
  return Step(shape, node, network, PrefillLoad(config_, tokens));
}

StepTime CostModel::Step(const Shape& shape, const Node& node,
                         const Network& network,
                         const bench::StepLoad& load) const {
  bench::StepCost cost = accounting_.CostOf(load);
  const bench::Cost experts =
      std::exchange(Of(cost, StepPart::kRoutedExperts), {});
  const double shared = Seconds(
      std::exchange(Of(cost, StepPart::kSharedExpert), {}), node.limits);
  StepTime time;
  time.attention = Seconds(cost, node.limits);
  const auto layers = static_cast<double>(moe_layers_);
  if (layers == 0) {
    time.attention += shared;
    return time;
  }

  const auto tokens = static_cast<double>(Tokens(load));
  const double distinct = load.distinct_experts / layers;
  const double workers = shape.expert_workers;
  const double mean_share = Seconds(experts, node.limits) / workers;
  time.experts =
      mean_share * BusiestOverMean(std::llround(std::max(1.0, distinct)),
                                   shape.expert_workers, shape.copies);
  // Workers that one row goes to.
  const double chosen = config_.num_experts_per_tok;
  const double reached = workers * (1 - std::pow(1 - 1 / workers, chosen));
  time.wire = layers * tokens *
              (reached * row_bytes_ + chosen * output_bytes_) /
              network.bytes_per_second;
  time.dispatch = layers * network.dispatch_seconds;
  // What of the shared expert is not hidden behind its dispatch.
  time.attention +=
      std::max(0.0, shared - time.experts - time.wire - time.dispatch);

  // Others' calls: as many as wait for one another at a time.
  const double others = shape.attention_workers - 1;
  const double alone = time.Total();
  const double asked = shape.attention_workers * mean_share;
  if (others > 0) {
    const double busy = std::min(0.99, asked / alone);
    time.queueing = time.experts * std::min(others, busy / (2 * (1 - busy)));
    time.queueing = std::max(time.queueing, asked - alone);
  }
  time.expert_busy = asked / time.Total();
  return time;
}

double CostModel::DecodeSecondsInProcess(const bench::MachineLimits& limits,
                                         int64_t users, int64_t context) const {
  return SecondsInProcess(
      accounting_.CostOf(DecodeLoad(config_, users, context)), limits);
}

double CostModel::PrefillSecondsInProcess(const bench::MachineLimits& limits,
                                          int64_t tokens) const {
  return SecondsInProcess(accounting_.CostOf(PrefillLoad(config_, tokens)),
                          limits);
}

}  // namespace switchyard::plan
