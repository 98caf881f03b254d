// What a user says about drafts, with SGLang's words.

#ifndef SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_OPTIONS_H_
#define SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_OPTIONS_H_

#include <string>

#include "absl/status/statusor.h"

namespace switchyard::attention_worker {

// Drafted tokens of one sequence and step, at most.
inline constexpr int kMaxDraftTokens = 8;

struct SpeculativeOptions {
  std::string algorithm =
      "auto";                // NEXTN, NONE; auto: NEXTN if there is a head
  int num_steps = 3;         // drafted tokens, in a chain
  int eagle_topk = 1;        // guesses for each place: a chain has one
  int num_draft_tokens = 0;  // num_steps + 1, or 0 to say nothing
  bool adaptive = true;      // depth follows what pays; false: always num_steps
};

// Tokens to draft at most; 0: none. INVALID_ARGUMENT names the option that is
// out of range. FAILED_PRECONDITION: NEXTN, of a model without an MTP head.
absl::StatusOr<int> DraftTokens(const SpeculativeOptions& options,
                                bool has_mtp);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_OPTIONS_H_
