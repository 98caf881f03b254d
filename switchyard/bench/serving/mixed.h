// Many users who come, talk, and leave in the middle, with little memory for
// their states: what the process keeps of them.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_MIXED_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_MIXED_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "switchyard/bench/serving/serving_model.h"

namespace switchyard::bench {

struct MixedOptions {
  int64_t sessions = 1000;
  int users = 12;          // at a time, each with one session
  int64_t most_turns = 4;  // of a session, uniformly from 1
  int64_t most_turn_tokens = 160;
  int64_t most_answer_tokens = 24;
  // Of the longest sessions' states; what users want together is more.
  int64_t budget_sessions = 4;
  int max_draft_tokens = 3;  // if the model has an MTP head
  int64_t prefill_chunk = 256;
};

struct MixedResult {
  MixedOptions options;
  int64_t requests = 0;
  int64_t aborted = 0;
  int64_t output_tokens = 0;
  int64_t state_budget_bytes = 0;
  // The most that was held when a request had just ended, snapshots included.
  int64_t state_held_peak_bytes = 0;
  // Of the process: when a fifth of the sessions had ended, the most later, and
  // their difference.
  int64_t resident_warm_bytes = 0;
  int64_t resident_peak_bytes = 0;

  int64_t GrowthBytes() const {
    return resident_peak_bytes - resident_warm_bytes;
  }
};

// Bound for MixedResult::GrowthBytes(): what a C library's heap may keep of
// many threads' short-lived allocations.
inline constexpr int64_t kMostGrowthBytes = 24 << 20;

// A session's content depends on its number alone. A fifth of all requests is
// aborted at a random token. In the end the engine is idle, and its state
// memory checks that every block came back. INVALID_ARGUMENT: the context is
// too short.
absl::StatusOr<MixedResult> MeasureMixed(ServingModel* model,
                                         const MixedOptions& options);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_MIXED_H_
