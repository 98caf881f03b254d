// How long a prompt that came now would wait for its first token.

#ifndef SWITCHYARD_ROUTER_ADMISSION_TTFT_ESTIMATE_H_
#define SWITCHYARD_ROUTER_ADMISSION_TTFT_ESTIMATE_H_

#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace switchyard::router {

// Tokens of prompts that wait, over the rate at which prompts have got their
// first tokens of late while any waited. That rate holds everything: how fast
// all workers read, what their prefix caches save, what decoding takes from
// them. Unsynchronised; times do not go back.
class TtftEstimate {
 public:
  // A prompt begins to wait.
  void Began(int64_t prompt_tokens, absl::Time now);
  // It has its first token; or goes without one, and says nothing of the rate.
  void Ended(int64_t prompt_tokens, bool has_token, absl::Time now);

  int64_t waiting_tokens() const { return waiting_tokens_; }
  // For one more prompt. Nothing: too little has been seen to tell.
  absl::optional<absl::Duration> For(int64_t prompt_tokens) const;

 private:
  void Advance(absl::Time now);

  int64_t waiting_tokens_ = 0;
  int64_t waiting_ = 0;  // prompts
  absl::Time last_ = absl::InfinitePast();
  // Both fade, so that the rate is that of the last minute or so.
  double done_tokens_ = 0;
  double busy_seconds_ = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ADMISSION_TTFT_ESTIMATE_H_
