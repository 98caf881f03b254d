// What an attention worker does with its memory: decided once, before it loads.

#ifndef SWITCHYARD_ATTENTION_WORKER_MEMORY_PLAN_H_
#define SWITCHYARD_ATTENTION_WORKER_MEMORY_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "attention_worker/state/sequence_state.h"
#include "model/checkpoint.h"

namespace switchyard::attention_worker {

// Bytes of the checkpoint's tensors that a worker reads; the MTP head's only if
// it drafts.
struct WeightBytes {
  int64_t experts = 0;  // routed ones, of all layers
  int64_t others = 0;   // everything else
};
absl::StatusOr<WeightBytes> MeasureWeights(const model::Checkpoint& checkpoint,
                                           bool with_mtp = false);

struct MemoryRequest {
  int64_t available_bytes = 0;  // base/memory_limit.h
  int64_t weight_bytes = 0;     // that this worker keeps in memory
  int64_t state_bytes = 0;      // 0: half of what the weights leave
  int64_t max_model_len =
      0;  // 0: the model's, or what the states' memory allows
};

struct MemoryPlan {
  int64_t state_bytes = 0;    // budget of all sequences' states
  int64_t max_model_len = 0;  // tokens of one sequence
  std::string explanation;    // for the log: what was decided, and from what
};

// A pure function. INVALID_ARGUMENT: max_model_len is longer than the model's
// context. FAILED_PRECONDITION: it does not fit (with the numbers, and what to
// change).
absl::StatusOr<MemoryPlan> PlanMemory(const MemoryRequest& request,
                                      const StateShape& shape,
                                      int64_t model_context);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MEMORY_PLAN_H_
