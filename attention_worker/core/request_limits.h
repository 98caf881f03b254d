// Which requests can be served at all. A pure function, so that a refusal does
// not depend on the load.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_REQUEST_LIMITS_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_REQUEST_LIMITS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/state/state_costs.h"

namespace switchyard::attention_worker {

inline constexpr int kMaxTopLogprobs = 20;
inline constexpr int64_t kMaxStopTokenIds = 1024;
inline constexpr int64_t kMaxRequestIdBytes = 256;

struct RequestLimits {
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;
  int64_t state_memory_bytes = 0;
  StateCosts state_costs;

  // Prompt and output together, at most, of this request.
  int64_t MaxTokensOf(const GenerationRequest& request) const;
  // The longest sequence whose state fits when it is alone. The last token of a
  // sequence is never read, so it needs no room.
  int64_t LongestSequence() const;
};

// INVALID_ARGUMENT with the numbers, or OK.
absl::Status CheckRequest(const GenerationRequest& request,
                          const RequestLimits& limits);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_REQUEST_LIMITS_H_
