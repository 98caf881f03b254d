#include "switchyard/bench/counting_dispatcher.h"

namespace switchyard::bench {

attention_worker::DispatchResult CountingDispatcher::Dispatch(
    const attention_worker::DispatchRequest& request,
    absl::FunctionRef<void()> overlap) {
  ++dispatches_;
  for (const int32_t expert : request.experts) {
    const auto index = static_cast<size_t>(expert);
    if (index >= last_seen_.size()) last_seen_.resize(index + 1, 0);
    if (last_seen_[index] == dispatches_) continue;
    last_seen_[index] = dispatches_;
    ++distinct_experts_;
  }
  return behind_->Dispatch(request, overlap);
}

}  // namespace switchyard::bench
