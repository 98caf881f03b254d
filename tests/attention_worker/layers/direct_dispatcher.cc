#include "tests/attention_worker/layers/direct_dispatcher.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "experts/expert_ffn.h"

namespace switchyard::attention_worker {

DispatchResult DirectDispatcher::Dispatch(const DispatchRequest& request,
                                          absl::FunctionRef<void()> overlap) {
  SY_CHECK(request.num_rows > 0);
  const size_t layer = request.layer;
  if (rows_of_layer.size() <= layer) rows_of_layer.resize(layer + 1);
  rows_of_layer[layer] += request.num_rows;
  const int64_t h = request.hidden_size;
  const int k = request.experts_per_row;
  // A failed sequence's outputs mean nothing: make them poisonous.
  outputs_.assign(request.num_rows * k * h,
                  std::numeric_limits<float>::quiet_NaN());
  pointers_.resize(request.num_rows * k);
  sequence_status_.clear();
  for (absl::Time deadline : request.deadlines) {
    sequence_status_.push_back(fail ? fail(request.layer, deadline)
                                    : absl::OkStatus());
  }
  for (int64_t pair = 0; pair < request.num_rows * k; ++pair) {
    const int64_t row = pair / k;
    pointers_[pair] = &outputs_[pair * h];
    if (!sequence_status_[request.sequence_of_row[row]].ok()) continue;
    const auto expert =
        checkpoint_.FindExpert(request.layer, request.experts[pair]);
    SY_CHECK(expert.ok());
    experts::ExpertFfn(kernels_, *expert, request.rows.data() + row * h, 1,
                       &outputs_[pair * h]);
  }
  overlap();
  return {.outputs = pointers_,
          .sequence_status = sequence_status_,
          .compute_time = {}};
}

}  // namespace switchyard::attention_worker
