#include "attention_worker/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "attention_worker/core/request_limits.h"
#include "attention_worker/state/kv_dtype.h"
#include "base/status_macros.h"
#include "kernels/matrix.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::attention_worker {
namespace {

std::string Mebibytes(int64_t bytes) {
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}

absl::StatusOr<int64_t> BytesOfExperts(const model::Checkpoint& checkpoint,
                                       int layer) {
  int64_t bytes = 0;
  for (int expert = 0; expert < checkpoint.config().num_experts; ++expert) {
    SY_ASSIGN_OR_RETURN(const model::ExpertWeights weights,
                        checkpoint.FindExpert(layer, expert));
    bytes += model::WeightBytes(weights.gate_proj) +
             model::WeightBytes(weights.up_proj) +
             model::WeightBytes(weights.down_proj);
  }
  return bytes;
}

absl::Status DoesNotFit(const MemoryRequest& request, int64_t state_bytes) {
  return absl::FailedPreconditionError(absl::StrCat(
      "the weights take ", Mebibytes(request.weight_bytes),
      " and the sequences' states ", Mebibytes(state_bytes),
      ", but this process may use ", Mebibytes(request.available_bytes),
      "; give it more memory, lower --state-memory, leave the experts to "
      "expert workers (--expert-workers), or read them from disk as they are "
      "wanted (switchyard serve --experts-memory)"));
}

}  // namespace

absl::StatusOr<WeightBytes> MeasureWeights(const model::Checkpoint& checkpoint,
                                           bool with_mtp) {
  WeightBytes bytes;
  const int layers = checkpoint.config().num_hidden_layers + (with_mtp ? 1 : 0);
  for (int layer = 0; layer < layers; ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    SY_ASSIGN_OR_RETURN(const int64_t of_layer,
                        BytesOfExperts(checkpoint, layer));
    bytes.experts += of_layer;
  }
  SY_RETURN_IF_ERROR(model::ForEachNonExpertWeight(
      checkpoint.config(), with_mtp,
      [&](const std::string& name, absl::Span<const int64_t> /*shape*/) {
        const absl::StatusOr<kernels::WeightView> weight =
            checkpoint.Find(name);
        if (weight.ok()) bytes.others += model::WeightBytes(*weight);
        return weight.status();
      }));
  // A tied head that is quantised stands beside the embedding.
  SY_ASSIGN_OR_RETURN(const kernels::WeightView head,
                      checkpoint.Find(model::kLmHeadName));
  SY_ASSIGN_OR_RETURN(const kernels::WeightView embedding,
                      checkpoint.Find(model::kEmbeddingName));
  if (checkpoint.config().tie_word_embeddings && head.data != embedding.data) {
    bytes.others += model::WeightBytes(head);
  }
  return bytes;
}

absl::StatusOr<MemoryPlan> PlanMemory(const MemoryRequest& request,
                                      const StateShape& shape,
                                      int64_t model_context) {
  if (request.max_model_len > model_context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--context-length is ", request.max_model_len,
        " tokens, but this checkpoint's context is ", model_context,
        " (max_position_embeddings, with YaRN if config.json has it)"));
  }
  const int64_t left = request.available_bytes - request.weight_bytes;
  MemoryPlan plan;
  plan.state_bytes = request.state_bytes > 0 ? request.state_bytes : left / 2;
  if (plan.state_bytes <= 0 || plan.state_bytes > left) {
    return DoesNotFit(request, std::max<int64_t>(plan.state_bytes,
                                                 shape.Costs().BytesFor(1)));
  }
  const StateCosts costs = shape.Costs();
  const RequestLimits limits = {.state_memory_bytes = plan.state_bytes,
                                .state_costs = costs};
  const int64_t longest = limits.LongestSequence();
  const int64_t wanted =
      request.max_model_len > 0 ? request.max_model_len : model_context;
  if (longest < 2 || (request.max_model_len > 0 && longest < wanted)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "one sequence of ", wanted, " tokens needs ",
        Mebibytes(costs.BytesFor(wanted - 1)), " of state, but the budget is ",
        Mebibytes(plan.state_bytes),
        "; raise --state-memory or lower --context-length"));
  }
  plan.max_model_len = std::min(wanted, longest);
  plan.explanation = absl::StrCat(
      "memory: ", Mebibytes(request.available_bytes), " in all, weights ",
      Mebibytes(request.weight_bytes), ", states ", Mebibytes(plan.state_bytes),
      request.state_bytes > 0 ? " (as told)" : " (half of the rest)",
      "; a sequence takes ", Mebibytes(costs.fixed_bytes), " and ",
      costs.page_bytes / costs.page_tokens, " bytes a token (K and V in ",
      KvDTypeName(shape.kv.dtype), ") in pages of ", costs.page_tokens,
      "; context ", plan.max_model_len,
      plan.max_model_len < wanted
          ? " tokens, as much as the states' memory holds"
          : " tokens");
  return plan;
}

}  // namespace switchyard::attention_worker
