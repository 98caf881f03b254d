// Turns some pairs of a layer-step into a call.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_CALL_BUILDER_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_CALL_BUILDER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/expert_dispatcher.h"

namespace switchyard::attention_worker {

// Keeps its memory from one call to the next. One thread.
class CallBuilder {
 public:
  // `request` and what it points to outlive the dispatch.
  void Begin(const DispatchRequest* request);

  // `pairs` by expert, then by row: as the reply's rows will be. The call
  // points into memory that the next Build overwrites.
  ExpertCall Build(absl::Span<const int64_t> pairs);

 private:
  const DispatchRequest* request_ = nullptr;
  std::vector<int32_t> slot_of_row_;  // [T]; -1 between two calls
  std::vector<int32_t> rows_;
  std::vector<experts::ExpertRun> runs_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_CALL_BUILDER_H_
