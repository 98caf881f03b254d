// The end of a step, when there is an MTP head: it reads what the step read,
// and drafts what the next step verifies.
//
// Above: core/step_loop.h. Below: speculative/ decides how deep, and chains.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_DRAFT_STAGE_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_DRAFT_STAGE_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/core/engine_metrics.h"
#include "attention_worker/core/live_sequence.h"
#include "attention_worker/layers/mtp_head.h"
#include "attention_worker/speculative/depth_policy.h"
#include "attention_worker/speculative/drafter.h"
#include "base/clock.h"
#include "base/compute_pool.h"

namespace switchyard::attention_worker {

// What a step read of one sequence.
struct StepRead {
  LiveSequence* sequence = nullptr;
  int64_t begin = 0;    // tokens before
  bool prompt = false;  // not decoding when the step began
  // Of the token before, [H]; empty if the head has read its pair (or there is
  // none).
  std::vector<float> previous_hidden;
  // Of the tokens read, [>= those that count, H]; empty: one token, whose
  // hidden state is the state's last.
  absl::Span<const float> hidden;
};

// Not thread-safe: of the step thread.
class DraftStage {
 public:
  struct Options {
    MtpHead* head = nullptr;           // not owned; null: nobody drafts
    ComputePool* pool = nullptr;       // not owned; the head's
    EngineMetrics* metrics = nullptr;  // not owned, not null
    const Clock* clock = nullptr;
    int max_depth = 0;
    bool adaptive = true;
  };
  explicit DraftStage(const Options& options);

  bool enabled() const { return options_.head != nullptr; }
  int max_depth() const { return options_.max_depth; }

  // Whether a new sequence is to have drafts (LiveSequence::may_draft).
  bool Admit() { return enabled() && policy_.Admit(); }

  // Before a step reads on at state->num_tokens: what StepRead wants of it.
  std::vector<float> PreviousHidden(const LiveSequence& sequence) const;

  // Of `drafted` tokens of the sequence the first `accepted` were right.
  void Verified(LiveSequence* sequence, int64_t drafted, int64_t accepted);
  // EngineLoad's.
  double accepted_length() const {
    return mean_drafted_ == 0 ? 0 : 1 + mean_accepted_;
  }

  // A step, without drafting, took so long. REQUIRES: it read no prompt.
  void ObserveStep(int64_t sequences, int64_t draft_rows,
                   absl::Duration duration) {
    if (enabled()) policy_.ObserveStep(sequences, draft_rows, duration);
  }

  // Sets the sequences' drafts. `make_room` sees to pages for so many tokens of
  // a state, and says whether it could. Never fails: without the head's experts
  // nobody drafts for a while.
  void Run(
      absl::Span<const StepRead> reads,
      absl::FunctionRef<bool(SequenceState* state, int64_t tokens)> make_room);

 private:
  struct Pass;  // one sequence's share of a run

  std::vector<int> ChooseDepths(
      absl::Span<const StepRead> reads,
      absl::FunctionRef<bool(SequenceState* state, int64_t tokens)> make_room);
  static Pass MakePass(const StepRead& read, int depth);

  const Options options_;
  DepthPolicy policy_;
  Drafter drafter_;
  absl::Time paused_until_ = absl::InfinitePast();
  double mean_accepted_ = 0;  // of a verified chain; moving averages
  double mean_drafted_ = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_DRAFT_STAGE_H_
