// One request from its acceptance to its last word: what the step loop keeps.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_LIVE_SEQUENCE_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_LIVE_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/sampling/output_constraint.h"
#include "attention_worker/sampling/sampler.h"
#include "attention_worker/scheduler/sequence.h"
#include "attention_worker/speculative/acceptance.h"
#include "attention_worker/state/prefix.h"
#include "attention_worker/state/sequence_state.h"

namespace switchyard::attention_worker {

// A class with state of one thread: the step thread.
class LiveSequence {
 public:
  // `max_tokens`: prompt and output together. `max_drafts`: at a time.
  LiveSequence(const GenerationRequest& request,
               std::unique_ptr<TokenSink> sink, int64_t max_tokens,
               absl::Time submitted, int max_drafts = 0);

  // INVALID_ARGUMENT: the output does not follow its grammar. Possible only of
  // one that was begun elsewhere, or where tokens are forced.
  const absl::Status& constraint_status() const { return constraint_status_; }

  // Takes `id` as the next token of the output.
  void Append(int32_t id, absl::Time now);

  // Set once the output is complete: a stop token was chosen, or there is no
  // room.
  std::optional<FinishReason> CompleteBecause() const;

  // Of tokens that were chosen one after another, those up to the first that
  // ends the output.
  int64_t CountUntilStop(absl::Span<const SampledToken> chosen);

  SequenceView View() const;
  GenerationUsage Usage(absl::Time now) const;

  // The first tokens, and among whom their state is shared.
  Prefix FirstTokens(int64_t n) const {
    return Prefix{request.cache_scope, tokens}.first(n);
  }
  // Those up to which a kept state is of use: less than all while prompt
  // scores are wanted, which need the tokens before them read.
  Prefix RestorablePrefix() const;
  // Whether logits are wanted of prompt tokens that are read from `begin` on.
  bool WantsPromptScores(int64_t begin) const;
  // How many of the next `num_tokens` tokens to read in one chunk, so that all
  // or none of them need logits, and not too many do.
  int64_t CutForPromptScores(int64_t begin, int64_t num_tokens) const;

  int64_t known_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t max_tokens() const { return max_tokens_; }

  const GenerationRequest request;  // without the ids, which are in `tokens`
  const std::unique_ptr<TokenSink> sink;
  const absl::Time submitted;

  SequencePhase phase = SequencePhase::kWaiting;
  std::vector<int32_t> tokens;           // prompt and output so far
  TokenHistory history;                  // counts only for penalties
  std::unique_ptr<SequenceState> state;  // in kPrefill and kDecoding
  int64_t charged_bytes = 0;             // what `state` takes of the budget
  bool may_draft = false;       // the MTP head reads what the model reads
  std::vector<int32_t> drafts;  // of the next tokens; in kDecoding only
  Acceptance acceptance;
  std::unique_ptr<OutputConstraint> constraint;  // null: none
  // Token counts after which the state is kept for others; those still ahead.
  std::vector<int64_t> snapshot_points;
  // Of the prompt, at the first admission: read by somebody before.
  int64_t cached_prompt_tokens = 0;
  // Of the prompt, the next token to be given out with its logprob; the
  // prompt's size: none.
  int64_t next_prompt_score = 0;
  std::optional<absl::Time> admitted;  // first time
  std::optional<absl::Time> first_token;
  absl::Time last_token;

 private:
  void TakeUnderConstraint(int32_t id);

  absl::Status constraint_status_;
  const int64_t prompt_tokens_;
  const int64_t max_tokens_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_LIVE_SEQUENCE_H_
