#include "attention_worker/core/step_loop.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"

namespace switchyard::attention_worker {

StepLoop::StepLoop(Options options) : options_(std::move(options)) {
  budget_.prefill_tokens = options_.chunked_prefill_size;
  budget_.max_running = options_.max_running_requests;
  budget_.state_bytes = options_.limits.state_memory_bytes;
  budget_.fixed_state_bytes = options_.limits.fixed_state_bytes;
  budget_.state_bytes_per_token = options_.limits.state_bytes_per_token;
  ReportLoad();
}

StepLoop::~StepLoop() {
  SY_CHECK(sequences_.empty());
  SY_CHECK(running_ == 0);
  SY_CHECK(state_bytes_used_ == 0);
}

void StepLoop::Add(GenerationRequest request, std::unique_ptr<TokenSink> sink,
                   absl::Time submitted) {
  const int64_t max_tokens = options_.limits.MaxTokensOf(request);
  sequences_.push_back(std::make_unique<LiveSequence>(
      std::move(request), std::move(sink), max_tokens, submitted));
}

bool StepLoop::Step(const absl::flat_hash_set<std::string>& cancelled) {
  if (sequences_.empty()) return false;
  const absl::Time now = options_.clock->Now();
  EndCancelledAndExpired(cancelled, now);
  if (!sequences_.empty()) {
    const StepPlan plan = MakePlan();
    GiveAndTakeStates(plan, now);
    ReportLoad();
    Compute(plan, now);
    RemoveFinished();
  }
  ReportLoad();
  return true;
}

void StepLoop::FailAll(const absl::Status& status) {
  const absl::Time now = options_.clock->Now();
  for (const auto& sequence : sequences_) {
    Finish(sequence.get(), status, FinishReason::kStop, now);
  }
  RemoveFinished();
  ReportLoad();
}

void StepLoop::EndCancelledAndExpired(
    const absl::flat_hash_set<std::string>& cancelled, absl::Time now) {
  for (const auto& sequence : sequences_) {
    // A replay may bring an output that is complete already.
    const std::optional<FinishReason> complete = sequence->CompleteBecause();
    if (complete.has_value()) {
      Finish(sequence.get(), absl::OkStatus(), *complete, now);
    } else if (cancelled.contains(sequence->request.id)) {
      Finish(sequence.get(), absl::CancelledError("the request was cancelled"),
             FinishReason::kStop, now);
    } else if (now >= sequence->request.deadline) {
      Finish(
          sequence.get(),
          absl::DeadlineExceededError(absl::StrCat(
              "the request's deadline came after ",
              absl::FormatDuration(now - sequence->submitted), ", ",
              sequence->admitted.has_value()
                  ? "while it ran"
                  : "while it waited for memory or a free place",
              ", with ", sequence->known_tokens() - sequence->prompt_tokens(),
              " tokens of output")),
          FinishReason::kStop, now);
    }
  }
  RemoveFinished();
}

StepPlan StepLoop::MakePlan() const {
  std::vector<SequenceView> views;
  views.reserve(sequences_.size());
  for (const auto& sequence : sequences_) views.push_back(sequence->View());
  return options_.policy->Plan(views, budget_);
}

void StepLoop::GiveAndTakeStates(const StepPlan& plan, absl::Time now) {
  for (const size_t i : plan.preempt) {
    LiveSequence* sequence = sequences_[i].get();
    ReleaseState(sequence);
    sequence->phase = SequencePhase::kWaiting;
    options_.metrics->RequestPreempted();
  }
  for (const size_t i : plan.admit) {
    LiveSequence* sequence = sequences_[i].get();
    SY_CHECK(sequence->phase == SequencePhase::kWaiting);
    if (!sequence->admitted.has_value()) {
      sequence->admitted = now;
      options_.metrics->RequestAdmitted(now - sequence->submitted);
    }
    // The last token of a sequence is never read, so it needs no room.
    absl::StatusOr<std::unique_ptr<SequenceState>> state =
        SequenceState::Create(options_.runner->state_shape(),
                              sequence->max_tokens() - 1);
    if (!state.ok()) {
      Finish(sequence, state.status(), FinishReason::kStop, now);
      continue;
    }
    sequence->state = *std::move(state);
    sequence->phase = SequencePhase::kPrefill;
    ++running_;
  }
  ChargeStates();
}

void StepLoop::ChargeStates() {
  for (const auto& sequence : sequences_) {
    if (sequence->state == nullptr) continue;
    const int64_t bytes = budget_.BytesFor(sequence->View());
    state_bytes_used_ += bytes - sequence->charged_bytes;
    sequence->charged_bytes = bytes;
  }
  SY_CHECK(running_ <= budget_.max_running);
  SY_CHECK(state_bytes_used_ <= budget_.state_bytes);
}

void StepLoop::Compute(const StepPlan& plan, absl::Time now) {
  std::vector<SequenceChunk> chunks;
  std::vector<LiveSequence*> owners;
  int64_t prompt_tokens = 0;
  int64_t decode_tokens = 0;
  for (const StepEntry& entry : plan.entries) {
    LiveSequence* sequence = sequences_[entry.sequence].get();
    if (sequence->phase == SequencePhase::kFinished) continue;
    const int64_t begin = sequence->state->num_tokens;
    SY_CHECK(entry.num_tokens >= 1 &&
             begin + entry.num_tokens <= sequence->known_tokens());
    const bool last = begin + entry.num_tokens == sequence->known_tokens();
    chunks.push_back(
        {.state = sequence->state.get(),
         .tokens = absl::MakeConstSpan(sequence->tokens)
                       .subspan(begin, entry.num_tokens),
         .logits = last ? LogitsOf::kLastToken : LogitsOf::kNothing,
         .deadline = std::min(sequence->request.deadline,
                              now + options_.expert_wait_timeout)});
    owners.push_back(sequence);
    (sequence->phase == SequencePhase::kDecoding ? decode_tokens
                                                 : prompt_tokens) +=
        entry.num_tokens;
  }
  if (chunks.empty()) return;
  if (options_.timer != nullptr) options_.timer->Start();
  const std::vector<ChunkResult> results = options_.runner->Step(chunks);
  SY_CHECK(results.size() == chunks.size());
  const absl::Time end = options_.clock->Now();
  int64_t sampled = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    sampled +=
        results[i].status.ok() && chunks[i].logits == LogitsOf::kLastToken;
  }
  // Counted before anybody hears of it: who has its tokens finds them counted.
  options_.metrics->StepDone(end - now, prompt_tokens, decode_tokens, sampled);
  for (size_t i = 0; i < chunks.size(); ++i) {
    Advance(owners[i], chunks[i], results[i], end);
  }
  if (options_.timer != nullptr) {
    options_.timer->Stop();
    options_.metrics->PartsDone(*options_.timer);
  }
}

void StepLoop::Advance(LiveSequence* sequence, const SequenceChunk& chunk,
                       const ChunkResult& result, absl::Time now) {
  if (!result.status.ok()) {
    LogWarning(absl::StrCat("request ", sequence->request.id,
                            " failed: ", result.status.ToString()));
    Finish(sequence, result.status, FinishReason::kStop, now);
    return;
  }
  SY_CHECK(sequence->state->health == StateHealth::kClean);
  if (chunk.logits == LogitsOf::kLastToken) {
    SY_CHECK(sequence->state->num_tokens == sequence->known_tokens());
    Sample(sequence, result.logits, now);
  }
}

void StepLoop::Sample(LiveSequence* sequence, const std::vector<float>& logits,
                      absl::Time now) {
  SY_CHECK(static_cast<int64_t>(logits.size()) == options_.limits.vocab_size);
  const GenerationRequest& request = sequence->request;
  GeneratedToken token;
  token.position = sequence->known_tokens();
  {
    const TimedPart timed(options_.timer, StepPart::kSampling);
    token.token =
        SampleToken(logits, request.sampling, sequence->history, token.position,
                    request.want_logprobs, request.num_top_logprobs);
  }
  if (sequence->first_token.has_value()) {
    options_.metrics->NextToken(now - sequence->last_token);
  } else {
    options_.metrics->FirstToken(now - sequence->submitted);
  }
  sequence->Append(token.token.id, now);
  sequence->phase = SequencePhase::kDecoding;
  sequence->sink->OnToken(token);
  const std::optional<FinishReason> complete = sequence->CompleteBecause();
  if (complete.has_value()) {
    Finish(sequence, absl::OkStatus(), *complete, now);
  }
}

void StepLoop::Finish(LiveSequence* sequence, const absl::Status& status,
                      FinishReason reason, absl::Time now) {
  if (sequence->phase == SequencePhase::kFinished) return;
  ReleaseState(sequence);
  sequence->phase = SequencePhase::kFinished;
  const GenerationUsage usage = sequence->Usage(now);
  options_.metrics->RequestDone(status, reason, usage,
                                now - sequence->submitted);
  // What the sink's owner sees next must not be older than its last word.
  ReportLoad();
  options_.on_done(sequence->request.id);
  sequence->sink->OnDone(status, reason, usage);
}

void StepLoop::ReleaseState(LiveSequence* sequence) {
  if (sequence->state == nullptr) return;
  sequence->state.reset();
  --running_;
  state_bytes_used_ -= sequence->charged_bytes;
  sequence->charged_bytes = 0;
  SY_CHECK(running_ >= 0 && state_bytes_used_ >= 0);
}

void StepLoop::RemoveFinished() {
  sequences_.erase(
      std::remove_if(sequences_.begin(), sequences_.end(),
                     [](const std::unique_ptr<LiveSequence>& sequence) {
                       return sequence->phase == SequencePhase::kFinished;
                     }),
      sequences_.end());
}

void StepLoop::ReportLoad() {
  EngineLoad load;
  load.running = running_;
  for (const auto& sequence : sequences_) {
    load.waiting += sequence->phase == SequencePhase::kWaiting;
  }
  load.state_bytes_used = state_bytes_used_;
  load.state_bytes_budget = budget_.state_bytes;
  options_.metrics->SetLoad(load);
  options_.on_load(load);
}

}  // namespace switchyard::attention_worker
