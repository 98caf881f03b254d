#include "attention_worker/layers/moe_layer.h"

#include <algorithm>

#include "absl/time/time.h"
#include "attention_worker/layers/gate.h"
#include "attention_worker/layers/mat_mul.h"
#include "attention_worker/layers/shared_expert.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// What the gate chose: [rows, K] each.
struct Routes {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Routes RunGate(const LayerContext& context, const MoeWeights& weights,
               int layer, int64_t rows, const float* x) {
  const TimedPart timed(context.timer, StepPart::kGate);
  const int64_t num_experts = weights.gate.rows;
  const int k = context.config->num_experts_per_tok;
  const Scratch::Frame frame(context.scratch);
  float* const logits = context.scratch->Floats(rows * num_experts);
  const MatMulJob gate[] = {
      {weights.gate, x, weights.gate.cols, logits, num_experts}};
  MatMul(context, gate, rows);
  Routes routes{std::vector<int32_t>(rows * k), std::vector<float>(rows * k)};
  ForEach(context, rows, 4 * num_experts, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      SelectExperts(logits + t * num_experts, static_cast<int>(num_experts), k,
                    context.config->norm_topk_prob, &routes.experts[t * k],
                    &routes.weights[t * k]);
    }
  });
  if (context.probe) {
    context.Report("gate_logits", layer, rows, num_experts, logits);
    const std::vector<float> indices(routes.experts.begin(),
                                     routes.experts.end());
    context.Report("gate_indices", layer, rows, k, indices.data());
    context.Report("gate_weights", layer, rows, k, routes.weights.data());
  }
  return routes;
}

}  // namespace

std::vector<absl::Status> MoeLayer(const LayerContext& context,
                                   const MoeWeights& weights, int layer,
                                   ExpertDispatcher* dispatcher,
                                   absl::Span<const LayerSequence> sequences,
                                   int64_t rows, const float* x, float* y) {
  const int64_t hidden = context.config->hidden_size;
  const int k = context.config->num_experts_per_tok;
  const Routes routes = RunGate(context, weights, layer, rows, x);

  std::vector<int32_t> sequence_of_row(rows);
  std::vector<absl::Time> deadlines;
  for (const LayerSequence& sequence : sequences) {
    std::fill_n(sequence_of_row.begin() + sequence.first_row, sequence.num_rows,
                static_cast<int32_t>(deadlines.size()));
    deadlines.push_back(sequence.deadline);
  }

  const Scratch::Frame frame(context.scratch);
  float* const shared = context.scratch->Floats(rows * hidden);
  float* const shared_scale = context.scratch->Floats(rows);
  const TimedPart timed(context.timer, StepPart::kDispatch);
  DispatchRequest request;
  request.layer = layer;
  request.num_rows = rows;
  request.experts_per_row = k;
  request.hidden_size = hidden;
  request.rows = absl::MakeConstSpan(x, rows * hidden);
  request.experts = routes.experts;
  request.sequence_of_row = sequence_of_row;
  request.deadlines = deadlines;
  const DispatchResult routed = dispatcher->Dispatch(request, [&] {
    const TimedPart shared_timed(context.timer, StepPart::kSharedExpert);
    SharedExpert(context, weights, rows, x, shared, shared_scale);
  });
  if (context.timer != nullptr) {
    context.timer->Move(StepPart::kDispatch, StepPart::kRoutedExperts,
                        routed.compute_time);
  }
  SY_CHECK(routed.outputs.size() == static_cast<size_t>(rows * k));
  SY_CHECK(routed.sequence_status.size() == sequences.size());

  ForEach(context, rows, (k + 1) * hidden, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* const sum = y + t * hidden;
      std::fill_n(sum, hidden, 0.0f);
      // Without outputs the sequence ends here: its sums mean nothing.
      if (!routed.sequence_status[sequence_of_row[t]].ok()) continue;
      for (int64_t pair = t * k; pair < (t + 1) * k; ++pair) {
        context.kernels->axpy(routes.weights[pair], routed.outputs[pair], sum,
                              hidden);
      }
      context.kernels->axpy(shared_scale[t], shared + t * hidden, sum, hidden);
    }
  });
  return {routed.sequence_status.begin(), routed.sequence_status.end()};
}

}  // namespace switchyard::attention_worker
