#include "tests/attention_worker/layers/direct_dispatcher.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace switchyard::attention_worker {

DispatchResult DirectDispatcher::Dispatch(const DispatchRequest& request,
                                          absl::FunctionRef<void()> overlap) {
  SY_CHECK(request.num_rows > 0);
  const size_t layer = request.layer;
  if (rows_of_layer.size() <= layer) rows_of_layer.resize(layer + 1);
  rows_of_layer[layer] += request.num_rows;
  const int64_t h = request.hidden_size;
  const int k = request.experts_per_row;
  DispatchResult result;
  // A failed sequence's outputs mean nothing: make them poisonous.
  result.outputs.assign(request.num_rows * k * h,
                        std::numeric_limits<float>::quiet_NaN());
  for (absl::Time deadline : request.deadlines) {
    result.sequence_status.push_back(fail ? fail(request.layer, deadline)
                                          : absl::OkStatus());
  }
  for (int64_t pair = 0; pair < request.num_rows * k; ++pair) {
    const int64_t row = pair / k;
    if (!result.sequence_status[request.sequence_of_row[row]].ok()) continue;
    const auto expert =
        checkpoint_.FindExpert(request.layer, request.experts[pair]);
    SY_CHECK(expert.ok());
    const int64_t inner = expert->gate_proj.rows;
    std::vector<float> gate(inner), up(inner);
    const float* const x = request.rows.data() + row * h;
    kernels_.matmul(expert->gate_proj, 0, inner, x, h, 1, gate.data(), inner);
    kernels_.matmul(expert->up_proj, 0, inner, x, h, 1, up.data(), inner);
    kernels_.silu_mul(gate.data(), up.data(), inner, gate.data());
    kernels_.matmul(expert->down_proj, 0, h, gate.data(), inner, 1,
                    &result.outputs[pair * h], h);
  }
  overlap();
  return result;
}

}  // namespace switchyard::attention_worker
