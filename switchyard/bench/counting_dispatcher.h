// A dispatcher that counts what goes through another one.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_COUNTING_DISPATCHER_H_
#define SWITCHYARD_SWITCHYARD_BENCH_COUNTING_DISPATCHER_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "attention_worker/moe/expert_dispatcher.h"

namespace switchyard::bench {

// One thread's, as the dispatcher behind it.
class CountingDispatcher final : public attention_worker::ExpertDispatcher {
 public:
  // `behind` is not owned, and outlives this.
  explicit CountingDispatcher(attention_worker::ExpertDispatcher* behind)
      : behind_(behind) {}

  attention_worker::DispatchResult Dispatch(
      const attention_worker::DispatchRequest& request,
      absl::FunctionRef<void()> overlap) override;
  void SetClients(std::vector<std::shared_ptr<attention_worker::ExpertClient>>
                      clients) override {
    behind_->SetClients(std::move(clients));
  }
  model::ExpertSet MissingExperts() const override {
    return behind_->MissingExperts();
  }

  // (layer, expert) pairs that got a row, each counted once a dispatch.
  int64_t distinct_experts() const { return distinct_experts_; }
  int64_t dispatches() const { return dispatches_; }

 private:
  attention_worker::ExpertDispatcher* const behind_;
  int64_t distinct_experts_ = 0;
  int64_t dispatches_ = 0;
  std::vector<int64_t> last_seen_;  // by expert: number of the dispatch
};

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_COUNTING_DISPATCHER_H_
