// What a sequence's state costs: a fixed part, and pages that come with tokens.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_STATE_COSTS_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_STATE_COSTS_H_

#include <cstdint>
#include <limits>

namespace switchyard::attention_worker {

struct StateCosts {
  int64_t fixed_bytes = 0;
  int64_t page_bytes = 0;
  int64_t page_tokens = 1;

  int64_t BytesFor(int64_t tokens) const {
    return fixed_bytes + (tokens + page_tokens - 1) / page_tokens * page_bytes;
  }
  // Most tokens whose state takes no more than `bytes`; negative if not even an
  // empty one fits.
  int64_t TokensFor(int64_t bytes) const {
    if (bytes < fixed_bytes) return -1;
    if (page_bytes == 0) return std::numeric_limits<int64_t>::max() / 2;
    return (bytes - fixed_bytes) / page_bytes * page_tokens;
  }
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_STATE_COSTS_H_
