#include "attention_worker/speculative/drafter.h"

#include <cstddef>
#include <utility>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// The last row's logits to the next token of the chain.
void Draft(absl::Span<const DraftJob> jobs, const std::vector<size_t>& job_of,
           const std::vector<MtpResult>& steps, ComputePool* pool,
           std::vector<Drafter::Result>* results) {
  std::vector<SampleJob> sample;
  std::vector<size_t> result_of;
  std::vector<std::vector<uint64_t>> masks(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    if (!steps[i].status.ok() || steps[i].logits.empty()) continue;
    const DraftJob& job = jobs[job_of[i]];
    const int64_t drafted =
        static_cast<int64_t>((*results)[job_of[i]].drafts.size());
    sample.push_back({.logits = steps[i].logits,
                      .params = job.params,
                      .history = job.history,
                      .position = job.position + drafted});
    result_of.push_back(job_of[i]);
    if (job.constraint == nullptr) continue;
    masks[i].resize(static_cast<size_t>(job.constraint->mask_words()));
    // Where nothing may follow, any guess is as wrong as another.
    if (job.constraint->FillMask(absl::MakeSpan(masks[i]))) {
      sample.back().masks = absl::MakeConstSpan(&masks[i], 1);
    }
  }
  std::vector<std::vector<SampledToken>> tokens(sample.size());
  SampleTokens(sample, pool, absl::MakeSpan(tokens));
  for (size_t i = 0; i < tokens.size(); ++i) {
    (*results)[result_of[i]].drafts.push_back(tokens[i][0].id);
    OutputConstraint* const constraint = jobs[result_of[i]].constraint;
    if (constraint != nullptr) constraint->Take(tokens[i][0].id);
  }
}

}  // namespace

std::vector<Drafter::Result> Drafter::Run(absl::Span<const DraftJob> jobs,
                                          absl::Time deadline) {
  std::vector<Result> results(jobs.size());
  for (const DraftJob& job : jobs) {
    if (job.constraint != nullptr) job.constraint->BeginTrial();
  }
  std::vector<MtpChunk> chunks;
  std::vector<size_t> job_of;  // of each chunk
  for (size_t i = 0; i < jobs.size(); ++i) {
    chunks.push_back({.state = jobs[i].state,
                      .hidden = jobs[i].hidden,
                      .next_tokens = jobs[i].next_tokens,
                      .logits = jobs[i].depth > 0 ? LogitsOf::kLastToken
                                                  : LogitsOf::kNothing,
                      .deadline = deadline});
    job_of.push_back(i);
  }
  std::vector<MtpResult> steps = head_->Step(chunks);
  for (size_t i = 0; i < jobs.size(); ++i) results[i].status = steps[i].status;
  Draft(jobs, job_of, steps, pool_, &results);
  // Where true pairs end.
  std::vector<int64_t> pairs(jobs.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    pairs[i] = jobs[i].state->num_mtp_pairs;
  }
  std::vector<MtpResult> previous = std::move(steps);
  while (true) {
    std::vector<MtpChunk> next;
    std::vector<size_t> next_job_of;
    for (size_t i = 0; i < job_of.size(); ++i) {
      const DraftJob& job = jobs[job_of[i]];
      const Result& result = results[job_of[i]];
      if (!previous[i].status.ok() ||
          static_cast<int>(result.drafts.size()) >= job.depth) {
        continue;
      }
      const absl::Span<const float> hidden = previous[i].hidden;
      const size_t width = hidden.size() / chunks[i].next_tokens.size();
      next.push_back({.state = job.state,
                      .hidden = hidden.last(width),
                      .next_tokens = absl::MakeConstSpan(result.drafts).last(1),
                      .logits = LogitsOf::kLastToken,
                      .deadline = deadline});
      next_job_of.push_back(job_of[i]);
    }
    if (next.empty()) break;
    std::vector<MtpResult> after = head_->Step(next);
    for (size_t i = 0; i < after.size(); ++i) {
      if (!after[i].status.ok()) {
        results[next_job_of[i]].status = after[i].status;
      }
    }
    chunks = std::move(next);
    job_of = std::move(next_job_of);
    Draft(jobs, job_of, after, pool_, &results);
    previous = std::move(after);
  }
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i].state->num_mtp_pairs = pairs[i];
    if (jobs[i].constraint != nullptr) jobs[i].constraint->EndTrial();
  }
  return results;
}

}  // namespace switchyard::attention_worker
