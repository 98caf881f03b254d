// A dispatcher without holders: computes every pair on the spot, and can be
// told to fail sequences.

#ifndef SWITCHYARD_TESTS_ATTENTION_WORKER_LAYERS_DIRECT_DISPATCHER_H_
#define SWITCHYARD_TESTS_ATTENTION_WORKER_LAYERS_DIRECT_DISPATCHER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "kernels/kernel_table.h"
#include "model/checkpoint.h"

namespace switchyard::attention_worker {

class DirectDispatcher final : public ExpertDispatcher {
 public:
  // Neither is owned; both outlive this.
  DirectDispatcher(const model::Checkpoint* checkpoint,
                   const kernels::KernelTable* kernels)
      : checkpoint_(*checkpoint), kernels_(*kernels) {}

  // Asked for every sequence of every dispatch: not OK makes it fail.
  // `deadline` tells sequences apart.
  std::function<absl::Status(int layer, absl::Time deadline)> fail;

  // Rows seen so far, per layer.
  std::vector<int64_t> rows_of_layer;

  DispatchResult Dispatch(const DispatchRequest& request,
                          absl::FunctionRef<void()> overlap) override;
  // It computes every expert itself.
  void SetClients(std::vector<std::shared_ptr<ExpertClient>> clients) override {
  }
  model::ExpertSet MissingExperts() const override { return {}; }

 private:
  const model::Checkpoint& checkpoint_;
  const kernels::KernelTable& kernels_;
  // What the last result points at.
  std::vector<float> outputs_;
  std::vector<const float*> pointers_;
  std::vector<absl::Status> sequence_status_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_TESTS_ATTENTION_WORKER_LAYERS_DIRECT_DISPATCHER_H_
