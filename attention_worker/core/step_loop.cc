#include "attention_worker/core/step_loop.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/core/prompt_scores.h"
#include "attention_worker/core/snapshot_points.h"
#include "base/check.h"
#include "base/log.h"

namespace switchyard::attention_worker {
// One chunk, and whose.
struct StepLoop::Work {
  LiveSequence* sequence = nullptr;
  SequenceChunk chunk;
  // The drafted ones, at the end of `tokens`.
  absl::Span<const int32_t> drafts() const {
    return absl::MakeConstSpan(tokens).last(
        static_cast<size_t>(chunk.provisional_tokens));
  }
  int64_t begin = 0;  // tokens before the chunk
  bool prompt = false;
  std::vector<int32_t> tokens;         // of the chunk, if it has drafts
  std::vector<float> previous_hidden;  // StepRead's
  std::vector<SnapshotPoint> points;
  std::vector<StateBlock> blocks;  // of `points`
};

StepLoop::StepLoop(Options options)
    : options_(std::move(options)),
      cache_(options_.memory->shape()),
      transfers_({.cache = &cache_,
                  .memory = options_.memory,
                  .load_from_disk =
                      [this](const Prefix& prefix) {
                        if (options_.store == nullptr) return;
                        LoadFromDisk(prefix,
                                     cache_.Find(prefix).snapshot.num_tokens);
                      },
                  .end_request =
                      [this](const std::string& id) { return EndAndKeep(id); },
                  .open = options_.open_transfers}),
      drafts_({.head = options_.mtp_head,
               .pool = options_.pool,
               .metrics = options_.metrics,
               .clock = options_.clock,
               .max_depth =
                   static_cast<int>(options_.memory->shape().max_draft_tokens),
               .adaptive = options_.adaptive_drafts}) {
  SY_CHECK(drafts_.enabled() == options_.memory->shape().drafts());
  budget_.prefill_tokens = options_.chunked_prefill_size;
  budget_.max_running = options_.max_running_requests;
  budget_.state_bytes = options_.limits.state_memory_bytes;
  budget_.costs = options_.limits.state_costs;
  ReportLoad();
}

StepLoop::~StepLoop() {
  SY_CHECK(sequences_.empty());
  SY_CHECK(running_ == 0);
  SY_CHECK(state_bytes_used_ == 0);
}

void StepLoop::Add(const GenerationRequest& request,
                   std::unique_ptr<TokenSink> sink, absl::Time submitted) {
  const int64_t max_tokens = options_.limits.MaxTokensOf(request);
  sequences_.push_back(std::make_unique<LiveSequence>(
      request, std::move(sink), max_tokens, submitted, drafts_.max_depth()));
  sequences_.back()->may_draft = drafts_.Admit();
}

void StepLoop::Refuse(const GenerationRequest& request,
                      std::unique_ptr<TokenSink> sink, absl::Time submitted,
                      const absl::Status& status) {
  const int64_t max_tokens = options_.limits.MaxTokensOf(request);
  sequences_.push_back(std::make_unique<LiveSequence>(request, std::move(sink),
                                                      max_tokens, submitted));
  Finish(sequences_.back().get(), status, FinishReason::kStop,
         options_.clock->Now());
  RemoveFinished();
}

bool StepLoop::Step(const absl::flat_hash_set<std::string>& cancelled) {
  if (sequences_.empty()) return false;
  const absl::Time now = options_.clock->Now();
  EndCancelledAndExpired(cancelled, now);
  if (!sequences_.empty()) {
    const StepPlan plan = MakePlan();
    GiveAndTakeStates(plan, now);
    ReportLoad();
    SampleRestored();
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
    if (!sequence->constraint_status().ok()) {
      Finish(sequence.get(), sequence->constraint_status(), FinishReason::kStop,
             now);
    } else if (complete.has_value()) {
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
    KeepOrRelease(sequence);
    sequence->phase = SequencePhase::kWaiting;
    options_.metrics->RequestPreempted();
  }
  for (const size_t i : plan.admit) {
    LiveSequence* sequence = sequences_[i].get();
    SY_CHECK(sequence->phase == SequencePhase::kWaiting);
    const bool first_time = !sequence->admitted.has_value();
    if (first_time) {
      sequence->admitted = now;
      options_.metrics->RequestAdmitted(now - sequence->submitted);
      sequence->sink->OnBegin();
    }
    GiveState(sequence);
    if (first_time) {
      sequence->cached_prompt_tokens =
          std::min(sequence->state->num_tokens, sequence->prompt_tokens());
      options_.metrics->PrefixLookup(sequence->known_tokens(),
                                     sequence->state->num_tokens);
    }
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

void StepLoop::SampleRestored() {
  for (const auto& sequence : sequences_) {
    if (sequence->phase != SequencePhase::kPrefill ||
        sequence->state->num_tokens < sequence->known_tokens()) {
      continue;
    }
    const std::vector<float> logits =
        options_.runner->LastLogits(sequence->state.get());
    options_.metrics->TokensSampled(1);
    SampleJob job[] = {JobOf(sequence.get(), logits)};
    const std::vector<std::vector<uint64_t>> masks =
        MasksOf(sequence.get(), {});
    job[0].masks = masks;
    std::vector<SampledToken> tokens;
    SampleTokens(job, options_.pool, absl::MakeSpan(&tokens, 1));
    const absl::Time now = options_.clock->Now();
    Extend(sequence.get(), std::move(tokens[0]), now);
    FinishIfComplete(sequence.get(), now);
  }
}

StepLoop::Work StepLoop::MakeWork(LiveSequence* sequence, int64_t num_tokens) {
  const int64_t begin = sequence->state->num_tokens;
  // A plan counts tokens that were restored since as still to be read.
  num_tokens = std::min(num_tokens, sequence->known_tokens() - begin);
  num_tokens = sequence->CutForPromptScores(begin, num_tokens);
  SY_CHECK(num_tokens >= 1);
  Work work;
  work.sequence = sequence;
  work.begin = begin;
  work.prompt = sequence->phase != SequencePhase::kDecoding;
  work.previous_hidden = drafts_.PreviousHidden(*sequence);
  work.chunk.state = sequence->state.get();
  work.chunk.tokens =
      absl::MakeConstSpan(sequence->tokens).subspan(begin, num_tokens);
  const bool last = begin + num_tokens == sequence->known_tokens();
  work.chunk.logits = last ? LogitsOf::kLastToken : LogitsOf::kNothing;
  if (sequence->WantsPromptScores(begin)) {
    work.chunk.logits = LogitsOf::kEveryToken;
  }
  work.chunk.deadline = sequence->request.deadline;
  work.chunk.want_hidden = sequence->may_draft && work.prompt;
  if (!sequence->drafts.empty()) {
    SY_CHECK(!work.prompt && num_tokens == 1);
    work.tokens = {sequence->tokens.back()};
    work.tokens.insert(work.tokens.end(), sequence->drafts.begin(),
                       sequence->drafts.end());
    work.chunk.tokens = work.tokens;
    work.chunk.logits = LogitsOf::kEveryToken;
    work.chunk.want_hidden = true;
    work.chunk.provisional_tokens =
        static_cast<int64_t>(sequence->drafts.size());
    sequence->drafts.clear();
  }
  Grow(sequence->state.get(),
       begin + static_cast<int64_t>(work.chunk.tokens.size()));
  return work;
}

void StepLoop::TakeSnapshotBlocks(Work* work) {
  std::vector<int64_t>& ahead = work->sequence->snapshot_points;
  const int64_t end =
      work->begin + static_cast<int64_t>(work->chunk.tokens.size());
  while (!ahead.empty() && ahead.front() <= end) {
    const int64_t tokens = ahead.front();
    ahead.erase(ahead.begin());
    if (cache_.Contains(work->sequence->FirstTokens(tokens))) continue;
    StateBlock block = TakeEvicting(&StateMemory::TryTakeFixed);
    if (block == nullptr) continue;  // those that run take everything
    work->points.push_back({tokens - work->begin, block.get()});
    work->blocks.push_back(std::move(block));
  }
  work->chunk.snapshots = work->points;
}

void StepLoop::KeepSnapshots(const Work& work) {
  for (size_t i = 0; i < work.points.size(); ++i) {
    const int64_t tokens = work.begin + work.points[i].after_tokens;
    cache_.Insert(work.sequence->FirstTokens(tokens),
                  work.sequence->state->SnapshotAt(tokens, work.blocks[i]));
  }
}

void StepLoop::SaveSharedPrefixes(const std::vector<Work>& works) {
  if (options_.store == nullptr) return;
  for (const Work& work : works) {
    // The first message: a system prompt and tools, as a rule.
    const std::vector<int64_t>& boundaries =
        work.sequence->request.prefix_boundaries;
    SequenceState* const state = work.sequence->state.get();
    if (boundaries.empty() || state == nullptr ||
        boundaries.front() < kMinTokensOnDisk) {
      continue;
    }
    for (size_t i = 0; i < work.points.size(); ++i) {
      const int64_t tokens = work.begin + work.points[i].after_tokens;
      if (tokens != boundaries.front()) continue;
      SettlePairs(state, tokens);
      options_.store->SaveLater(work.sequence->FirstTokens(tokens),
                                state->SnapshotAt(tokens, work.blocks[i]));
    }
  }
}

void StepLoop::Compute(const StepPlan& plan, absl::Time now) {
  std::vector<Work> works;
  works.reserve(plan.entries.size());
  int64_t prompt_tokens = 0;
  int64_t decode_tokens = 0;
  for (const StepEntry& entry : plan.entries) {
    LiveSequence* sequence = sequences_[entry.sequence].get();
    if (sequence->phase == SequencePhase::kFinished) continue;
    works.push_back(MakeWork(sequence, entry.num_tokens));
    (sequence->phase == SequencePhase::kDecoding ? decode_tokens
                                                 : prompt_tokens) +=
        static_cast<int64_t>(works.back().chunk.tokens.size());
  }
  if (works.empty()) return;
  // After everybody's pages: a snapshot never takes what a running one needs.
  for (Work& work : works) TakeSnapshotBlocks(&work);
  std::vector<SequenceChunk> chunks;
  chunks.reserve(works.size());
  for (const Work& work : works) chunks.push_back(work.chunk);
  if (options_.timer != nullptr) options_.timer->Start();
  const ComputePool::Active active(options_.pool);
  const std::vector<ChunkResult> results = options_.runner->Step(chunks);
  SY_CHECK(results.size() == chunks.size());
  const absl::Time end = options_.clock->Now();
  std::vector<std::vector<SampledToken>> tokens = SampleAll(works, results);
  int64_t sampled = 0, draft_rows = 0;
  for (size_t i = 0; i < works.size(); ++i) {
    sampled += works[i].sequence->CountUntilStop(tokens[i]);
    draft_rows += chunks[i].provisional_tokens;
  }
  // Counted before anybody hears of it: who has its tokens finds them counted.
  options_.metrics->StepDone(end - now, prompt_tokens, decode_tokens);
  options_.metrics->TokensSampled(sampled);
  for (size_t i = 0; i < works.size(); ++i) {
    Advance(works[i], results[i], std::move(tokens[i]), end);
  }
  if (prompt_tokens == 0) {
    drafts_.ObserveStep(static_cast<int64_t>(works.size()), draft_rows,
                        options_.clock->Now() - now);
  }
  DraftNext(&works, results);
  SaveSharedPrefixes(works);
  if (options_.timer != nullptr) {
    options_.timer->Stop();
    options_.metrics->PartsDone(*options_.timer);
  }
}

SampleJob StepLoop::JobOf(LiveSequence* sequence,
                          const std::vector<float>& logits) const {
  return {.logits = logits,
          .params = &sequence->request.sampling,
          .history = &sequence->history,
          .position = sequence->known_tokens(),
          .want_logprob = sequence->request.want_logprobs,
          .num_top = sequence->request.num_top_logprobs};
}

std::vector<std::vector<uint64_t>> StepLoop::MasksOf(
    LiveSequence* sequence, absl::Span<const int32_t> drafts) {
  std::vector<std::vector<uint64_t>> masks;
  OutputConstraint* const constraint = sequence->constraint.get();
  if (constraint == nullptr) return masks;
  constraint->BeginTrial();
  for (size_t row = 0; row <= drafts.size(); ++row) {
    std::vector<uint64_t> mask(static_cast<size_t>(constraint->mask_words()));
    // Nothing is allowed where the output is complete: whatever is chosen there
    // is not taken.
    if (!constraint->FillMask(absl::MakeSpan(mask))) break;
    masks.push_back(std::move(mask));
    if (row < drafts.size() && !constraint->Take(drafts[row])) break;
  }
  constraint->EndTrial();
  return masks;
}

std::vector<std::vector<SampledToken>> StepLoop::SampleAll(
    const std::vector<Work>& works,
    const std::vector<ChunkResult>& results) const {
  const TimedPart timed(options_.timer, StepPart::kSampling);
  std::vector<SampleJob> jobs;
  std::vector<size_t> work_of_job;
  for (size_t i = 0; i < works.size(); ++i) {
    const LiveSequence& sequence = *works[i].sequence;
    // Not yet at the end of what is known.
    if (!results[i].status.ok() ||
        sequence.state->num_tokens < sequence.known_tokens()) {
      continue;
    }
    jobs.push_back(JobOf(works[i].sequence, results[i].logits));
    jobs.back().drafts = works[i].drafts();
    // Of a prompt whose every token has logits, the last row.
    jobs.back().logits = jobs.back().logits.last(
        (jobs.back().drafts.size() + 1) * options_.limits.vocab_size);
    work_of_job.push_back(i);
  }
  std::vector<std::vector<std::vector<uint64_t>>> masks(jobs.size());
  options_.pool->ParallelFor(
      static_cast<int64_t>(jobs.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          masks[i] = MasksOf(works[work_of_job[i]].sequence, jobs[i].drafts);
          jobs[i].masks = masks[i];
        }
      });
  std::vector<std::vector<SampledToken>> of_jobs(jobs.size());
  SampleTokens(jobs, options_.pool, absl::MakeSpan(of_jobs));
  std::vector<std::vector<SampledToken>> tokens(works.size());
  for (size_t i = 0; i < of_jobs.size(); ++i) {
    tokens[work_of_job[i]] = std::move(of_jobs[i]);
  }
  return tokens;
}

void StepLoop::Advance(const Work& work, const ChunkResult& result,
                       std::vector<SampledToken> sampled, absl::Time now) {
  LiveSequence* const sequence = work.sequence;
  if (!result.status.ok()) {
    LogWarning(absl::StrCat("request ", sequence->request.id,
                            " failed: ", result.status.ToString()));
    Finish(sequence, result.status, FinishReason::kStop, now);
    return;
  }
  SY_CHECK(sequence->state->health == StateHealth::kClean);
  KeepSnapshots(work);
  if (work.prompt && work.chunk.logits == LogitsOf::kEveryToken) {
    GivePromptScores(sequence, work.begin, result.logits, options_.pool);
  }
  if (sampled.empty()) return;
  SY_CHECK(sequence->state->num_tokens == sequence->known_tokens());
  if (work.chunk.provisional_tokens > 0) {
    drafts_.Verified(sequence, work.chunk.provisional_tokens,
                     static_cast<int64_t>(sampled.size()) - 1);
  }
  const int64_t taken = sequence->CountUntilStop(sampled);
  for (int64_t i = 0; i < taken; ++i) {
    Extend(sequence, std::move(sampled[i]), now);
  }
  TakeVerified(work, result, taken - 1);
  FinishIfComplete(sequence, now);
}

void StepLoop::TakeVerified(const Work& work, const ChunkResult& result,
                            int64_t accepted) {
  if (work.chunk.provisional_tokens == 0) return;
  SequenceState* const state = work.sequence->state.get();
  state->AcceptDrafts(
      accepted, result.hidden.data() + accepted * state->shape().hidden_floats);
  // What rejected drafts would have needed.
  state->Shrink(work.sequence->known_tokens());
}

void StepLoop::DraftNext(std::vector<Work>* works,
                         const std::vector<ChunkResult>& results) {
  if (!drafts_.enabled()) return;
  std::vector<StepRead> reads;
  for (size_t i = 0; i < works->size(); ++i) {
    Work& work = (*works)[i];
    if (work.sequence->phase == SequencePhase::kFinished) continue;
    reads.push_back({.sequence = work.sequence,
                     .begin = work.begin,
                     .prompt = work.prompt,
                     .previous_hidden = std::move(work.previous_hidden),
                     .hidden = results[i].hidden});
  }
  drafts_.Run(reads, [this](SequenceState* state, int64_t tokens) {
    return MakeRoomForDrafts(state, tokens);
  });
}

bool StepLoop::MakeRoomForDrafts(SequenceState* state, int64_t tokens) {
  if (state->room() >= tokens) return true;
  // Drafts must not be the reason that somebody loses a state: a page for each
  // that runs stays free.
  if (state_bytes_used_ + (running_ + 1) * budget_.costs.page_bytes >
      budget_.state_bytes) {
    return false;
  }
  Grow(state, tokens);
  return true;
}

void StepLoop::Extend(LiveSequence* sequence, SampledToken sampled,
                      absl::Time now) {
  GeneratedToken token;
  token.position = sequence->known_tokens();
  token.token = std::move(sampled);
  if (sequence->first_token.has_value()) {
    options_.metrics->NextToken(now - sequence->last_token);
  } else {
    options_.metrics->FirstToken(now - sequence->submitted);
    token.cached_prompt_tokens = sequence->cached_prompt_tokens;
  }
  sequence->Append(token.token.id, now);
  sequence->phase = SequencePhase::kDecoding;
  // What breaks the grammar is not for the client; FinishIfComplete() says why.
  if (!sequence->constraint_status().ok()) return;
  sequence->sink->OnToken(token);
}

void StepLoop::FinishIfComplete(LiveSequence* sequence, absl::Time now) {
  if (!sequence->constraint_status().ok()) {
    Finish(sequence, sequence->constraint_status(), FinishReason::kStop, now);
    return;
  }
  const std::optional<FinishReason> complete = sequence->CompleteBecause();
  if (complete.has_value()) {
    Finish(sequence, absl::OkStatus(), *complete, now);
  }
}

void StepLoop::Finish(LiveSequence* sequence, const absl::Status& status,
                      FinishReason reason, absl::Time now) {
  if (sequence->phase == SequencePhase::kFinished) return;
  KeepOrRelease(sequence);
  sequence->phase = SequencePhase::kFinished;
  const GenerationUsage usage = sequence->Usage(now);
  options_.metrics->RequestDone(status, reason, usage,
                                now - sequence->submitted);
  // What the sink's owner sees next must not be older than its last word.
  ReportLoad();
  options_.on_done(sequence->request.id);
  sequence->sink->OnDone(status, reason, usage);
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
  load.accepted_length = drafts_.accepted_length();
  options_.metrics->SetLoad(load);
  options_.metrics->SetPrefixCache(cache_.num_snapshots(),
                                   cache_.num_evictions(),
                                   options_.memory->used_bytes());
  if (options_.store != nullptr) {
    options_.metrics->SetSnapshotStore(options_.store->stats());
  }
  options_.on_load(load);
}

}  // namespace switchyard::attention_worker
