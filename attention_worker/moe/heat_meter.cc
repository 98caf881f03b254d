#include "attention_worker/moe/heat_meter.h"

namespace switchyard::attention_worker {

HeatMeter::HeatMeter(ExpertDispatcher* behind, int num_layers, int num_experts)
    : behind_(behind),
      num_layers_(num_layers),
      num_experts_(num_experts),
      rows_(static_cast<size_t>(num_layers) * num_experts) {}

DispatchResult HeatMeter::Dispatch(const DispatchRequest& request,
                                   absl::FunctionRef<void()> overlap) {
  if (request.layer >= 0 && request.layer < num_layers_) {
    std::atomic<uint32_t>* const rows =
        rows_.data() + static_cast<size_t>(request.layer) * num_experts_;
    for (const int32_t expert : request.experts) {
      if (expert < 0 || expert >= num_experts_) continue;
      rows[expert].fetch_add(1, std::memory_order_relaxed);
    }
    any_.store(true, std::memory_order_relaxed);
  }
  return behind_->Dispatch(request, overlap);
}

std::vector<uint32_t> HeatMeter::Take() {
  if (!any_.exchange(false, std::memory_order_relaxed)) return {};
  std::vector<uint32_t> taken(rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    taken[i] = rows_[i].exchange(0, std::memory_order_relaxed);
  }
  return taken;
}

}  // namespace switchyard::attention_worker
