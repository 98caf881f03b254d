#include "attention_worker/core/draft_stage.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"

namespace switchyard::attention_worker {
namespace {

// A draft that takes longer is worth nothing: the experts of the MTP head are
// missing, or their worker is stuck. Nobody's tokens wait for drafts.
constexpr absl::Duration kPatience = absl::Seconds(2);
constexpr absl::Duration kPause = absl::Seconds(10);
// Weights of the newest observation in moving averages.
constexpr double kAcceptanceWeight = 1.0 / 8;
constexpr double kMetricWeight = 1.0 / 64;

bool WantsDrafts(const LiveSequence& sequence) {
  return sequence.may_draft && sequence.phase == SequencePhase::kDecoding;
}

}  // namespace

struct DraftStage::Pass {
  std::vector<float> joined;  // hidden rows, if they are not in one place
  DraftJob job;
};

DraftStage::DraftStage(const Options& options)
    : options_(options),
      policy_({.max_depth = options.max_depth, .adaptive = options.adaptive}),
      drafter_(options.head, options.pool) {}

std::vector<float> DraftStage::PreviousHidden(
    const LiveSequence& sequence) const {
  SequenceState* const state = sequence.state.get();
  if (!sequence.may_draft || state->num_tokens == 0 ||
      state->num_mtp_pairs >= state->num_tokens) {
    return {};
  }
  const float* const hidden = state->last_hidden();
  return std::vector<float>(hidden, hidden + state->shape().hidden_floats);
}

void DraftStage::Verified(LiveSequence* sequence, int64_t drafted,
                          int64_t accepted) {
  sequence->acceptance.Observe(drafted, accepted, kAcceptanceWeight);
  const double weight = mean_drafted_ == 0 ? 1.0 : kMetricWeight;
  mean_accepted_ += weight * (static_cast<double>(accepted) - mean_accepted_);
  mean_drafted_ += weight * (static_cast<double>(drafted) - mean_drafted_);
  options_.metrics->DraftsVerified(drafted, accepted, accepted_length(),
                                   mean_accepted_ / mean_drafted_);
}

std::vector<int> DraftStage::ChooseDepths(
    absl::Span<const StepRead> reads,
    absl::FunctionRef<bool(SequenceState* state, int64_t tokens)> make_room) {
  std::vector<const Acceptance*> drafting;
  int64_t decoding = 0;
  for (const StepRead& read : reads) {
    if (WantsDrafts(*read.sequence)) {
      drafting.push_back(&read.sequence->acceptance);
    }
    decoding += read.sequence->phase == SequencePhase::kDecoding;
  }
  const std::vector<int> chosen = policy_.Choose(drafting, decoding);
  std::vector<int> depths(reads.size(), 0);
  size_t next = 0;
  for (size_t i = 0; i < reads.size(); ++i) {
    const LiveSequence& sequence = *reads[i].sequence;
    if (!WantsDrafts(sequence)) continue;
    // The last token of a sequence is never read.
    const int64_t known = sequence.known_tokens();
    int64_t depth =
        std::min<int64_t>(chosen[next++], sequence.max_tokens() - 1 - known);
    if (depth > 0 && !make_room(sequence.state.get(), known + depth)) {
      depth = std::min(depth, sequence.state->room() - known);
    }
    depths[i] = static_cast<int>(std::max<int64_t>(depth, 0));
  }
  return depths;
}

DraftStage::Pass DraftStage::MakePass(const StepRead& read, int depth) {
  LiveSequence* const sequence = read.sequence;
  SequenceState* const state = sequence->state.get();
  const int64_t width = state->shape().hidden_floats;
  // Pairs of tokens before the last one read are lost if they were not run when
  // it was time (when nobody drafted): they stay zeros.
  const int64_t first = read.begin - (read.previous_hidden.empty() ? 0 : 1);
  state->SkipMtpPairs(first);
  const int64_t end = std::min(state->num_tokens, sequence->known_tokens() - 1);
  const int64_t pairs = end - state->num_mtp_pairs;
  SY_CHECK(pairs >= 1);
  Pass pass;
  const int64_t rows = end - read.begin;
  const float* const hidden =
      read.hidden.empty() ? state->last_hidden() : read.hidden.data();
  SY_CHECK(read.hidden.empty()
               ? rows == 1
               : rows * width <= static_cast<int64_t>(read.hidden.size()));
  if (read.previous_hidden.empty()) {
    pass.job.hidden = absl::MakeConstSpan(hidden, rows * width);
  } else {
    pass.joined = read.previous_hidden;
    pass.joined.insert(pass.joined.end(), hidden, hidden + rows * width);
    pass.job.hidden = pass.joined;
  }
  pass.job.state = state;
  pass.job.next_tokens = absl::MakeConstSpan(sequence->tokens)
                             .subspan(state->num_mtp_pairs + 1, pairs);
  pass.job.depth = depth;
  pass.job.params = &sequence->request.sampling;
  pass.job.history = &sequence->history;
  pass.job.constraint = sequence->constraint.get();
  pass.job.position = sequence->known_tokens();
  return pass;
}

void DraftStage::Run(
    absl::Span<const StepRead> reads,
    absl::FunctionRef<bool(SequenceState* state, int64_t tokens)> make_room) {
  const absl::Time begin = options_.clock->Now();
  if (!enabled() || begin < paused_until_) return;
  const std::vector<int> depths = ChooseDepths(reads, make_room);
  std::vector<Pass> passes;
  passes.reserve(reads.size());  // jobs point into them
  std::vector<LiveSequence*> sequences;
  bool prompts = false;
  for (size_t i = 0; i < reads.size(); ++i) {
    // A prompt's pairs are run in any case: a later draft looks back at all of
    // them. Its last token may have been read before its next was known.
    const int64_t readable = std::min(reads[i].sequence->state->num_tokens,
                                      reads[i].sequence->known_tokens() - 1);
    if (!reads[i].sequence->may_draft || (depths[i] == 0 && !reads[i].prompt) ||
        readable <= reads[i].begin) {
      continue;
    }
    prompts = prompts || reads[i].prompt;
    passes.push_back(MakePass(reads[i], depths[i]));
    sequences.push_back(reads[i].sequence);
  }
  if (passes.empty()) return;
  std::vector<DraftJob> jobs;
  jobs.reserve(passes.size());
  for (const Pass& pass : passes) jobs.push_back(pass.job);
  std::vector<Drafter::Result> results = drafter_.Run(jobs, begin + kPatience);
  int64_t rows = 0;
  absl::Status failure;
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i].status.ok()) failure = results[i].status;
    rows += static_cast<int64_t>(results[i].drafts.size());
    sequences[i]->drafts = std::move(results[i].drafts);
  }
  const absl::Time end = options_.clock->Now();
  if (!failure.ok()) {
    LogWarning(absl::StrCat("the MTP head cannot draft, pausing it for ",
                            absl::FormatDuration(kPause), ": ",
                            failure.ToString()));
    paused_until_ = end + kPause;
  } else if (rows > 0 && !prompts) {
    // Under the number that Choose() was asked with: not all of them draft.
    policy_.ObserveDrafting(std::count_if(reads.begin(), reads.end(),
                                          [](const StepRead& read) {
                                            return read.sequence->phase ==
                                                   SequencePhase::kDecoding;
                                          }),
                            rows, end - begin);
  }
}

}  // namespace switchyard::attention_worker
