// Counts which experts the gates choose, on the way to the dispatcher.
//
// Above: worker.cc, which tells the routers. Below: expert_dispatcher.h.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_HEAT_METER_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_HEAT_METER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "attention_worker/moe/expert_dispatcher.h"

namespace switchyard::attention_worker {

// A dispatcher in front of another one, whose results are the other one's.
class HeatMeter final : public ExpertDispatcher {
 public:
  // `behind` is not owned and outlives this. L and E of the model.
  HeatMeter(ExpertDispatcher* behind, int num_layers, int num_experts);

  DispatchResult Dispatch(const DispatchRequest& request,
                          absl::FunctionRef<void()> overlap) override;
  void SetClients(std::vector<std::shared_ptr<ExpertClient>> clients) override {
    behind_->SetClients(std::move(clients));
  }
  model::ExpertSet MissingExperts() const override {
    return behind_->MissingExperts();
  }

  // Rows of each (layer, expert) since the last call, [L * E]; empty if there
  // were none. Thread-safe.
  std::vector<uint32_t> Take();

 private:
  ExpertDispatcher* const behind_;
  const int num_layers_;
  const int num_experts_;
  std::vector<std::atomic<uint32_t>> rows_;  // [L * E]
  std::atomic<bool> any_{false};
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_HEAT_METER_H_
