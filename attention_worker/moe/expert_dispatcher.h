// Sends one layer-step's (row, expert) pairs to whoever holds the experts, and
// brings back one vector per pair.
//
// Promise 3 begins here: pairs whose holder dies are sent again as soon as any
// holder of that expert is known; pairs without a holder wait until their
// sequence's deadline.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_DISPATCHER_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_DISPATCHER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/moe/expert_client.h"

namespace switchyard::attention_worker {

// T rows, each with its K chosen experts.
struct DispatchRequest {
  int layer = 0;
  int64_t num_rows = 0;                    // T
  int experts_per_row = 0;                 // K
  int64_t hidden_size = 0;                 // H
  absl::Span<const float> rows;            // [T, H]
  absl::Span<const int32_t> experts;       // [T, K]; no repeats within a row
  // Which sequence of the step a row belongs to, in [0, S): rows of one sequence
  // fail together.
  absl::Span<const int32_t> sequence_of_row;  // [T]
  absl::Span<const absl::Time> deadlines;     // [S]
};

struct DispatchResult {
  std::vector<float> outputs;         // [T, K, H]: pair (t, k)'s expert output
  // OK, or why this sequence's pairs are not all there: DEADLINE_EXCEEDED naming
  // the layer and the missing experts (and each unreachable holder's error).
  std::vector<absl::Status> sequence_status;  // [S]
};

class ExpertDispatcher {
 public:
  virtual ~ExpertDispatcher() = default;

  // Blocks until every pair is answered or its sequence has failed. Between
  // sending and waiting it runs `overlap` once (the shared expert).
  // One caller at a time (the step thread).
  virtual DispatchResult Dispatch(const DispatchRequest& request,
                                  absl::FunctionRef<void()> overlap) = 0;

  // (layer, expert) pairs that nobody reachable holds, for readiness and logs.
  // Thread-safe.
  virtual model::ExpertSet MissingExperts() const = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_DISPATCHER_H_
