#include "attention_worker/core/live_sequence.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"

namespace switchyard::attention_worker {
namespace {

// Of one chunk: a row of logits is 600 KB at the real vocabulary.
constexpr int64_t kMaxScoredRows = 64;

bool LooksAtHistory(const SamplingParams& params) {
  return params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 ||
         params.frequency_penalty != 0.0;
}

GenerationRequest WithoutIds(GenerationRequest request) {
  request.prompt_ids = {};
  request.resumed_output_ids = {};
  return request;
}

std::vector<int32_t> PromptThenResumed(const GenerationRequest& request) {
  std::vector<int32_t> tokens = request.prompt_ids;
  tokens.insert(tokens.end(), request.resumed_output_ids.begin(),
                request.resumed_output_ids.end());
  return tokens;
}

}  // namespace

LiveSequence::LiveSequence(const GenerationRequest& generation_request,
                           std::unique_ptr<TokenSink> token_sink,
                           int64_t max_tokens, absl::Time submit_time,
                           int max_drafts)
    : request(WithoutIds(generation_request)),
      sink(std::move(token_sink)),
      submitted(submit_time),
      tokens(PromptThenResumed(generation_request)),
      acceptance(max_drafts),
      prompt_tokens_(
          static_cast<int64_t>(generation_request.prompt_ids.size())),
      max_tokens_(max_tokens) {
  history.prompt_tokens = prompt_tokens_;
  next_prompt_score = request.prompt_logprobs_from < 1
                          ? prompt_tokens_
                          : request.prompt_logprobs_from;
  const auto& resumed = generation_request.resumed_output_ids;
  if (request.grammar != nullptr) {
    constraint = std::make_unique<OutputConstraint>(
        request.grammar, request.format->reasoning, request.stop_token_ids);
    for (const int32_t id : resumed) TakeUnderConstraint(id);
  }
  for (size_t i = 0; i < resumed.size(); ++i) {
    Observe(request.sampling.rules, static_cast<int64_t>(i), resumed[i],
            &history.progress);
  }
  if (!LooksAtHistory(request.sampling)) return;
  for (const int32_t id : generation_request.prompt_ids) ++history.prompt[id];
  for (const int32_t id : generation_request.resumed_output_ids) {
    ++history.generated[id];
  }
}

void LiveSequence::Append(int32_t id, absl::Time now) {
  Observe(request.sampling.rules, known_tokens() - prompt_tokens_, id,
          &history.progress);
  tokens.push_back(id);
  if (constraint != nullptr) TakeUnderConstraint(id);
  if (LooksAtHistory(request.sampling)) ++history.generated[id];
  if (!first_token.has_value()) first_token = now;
  last_token = now;
}

void LiveSequence::TakeUnderConstraint(int32_t id) {
  if (!constraint_status_.ok() || constraint->Take(id)) return;
  constraint_status_ = absl::InvalidArgumentError(absl::StrCat(
      "token ", id, " of the output does not follow the request's grammar"));
}

std::optional<FinishReason> LiveSequence::CompleteBecause() const {
  if (known_tokens() > prompt_tokens_ &&
      absl::c_linear_search(request.stop_token_ids, tokens.back())) {
    return FinishReason::kStop;
  }
  if (constraint != nullptr && constraint->complete()) {
    return FinishReason::kStop;
  }
  if (known_tokens() >= max_tokens_) return FinishReason::kLength;
  return std::nullopt;
}

int64_t LiveSequence::CountUntilStop(absl::Span<const SampledToken> chosen) {
  int64_t count = 0;
  if (constraint != nullptr) constraint->BeginTrial();
  for (const SampledToken& token : chosen) {
    ++count;
    if (absl::c_linear_search(request.stop_token_ids, token.id)) break;
    if (constraint != nullptr &&
        (!constraint->Take(token.id) || constraint->complete())) {
      break;
    }
  }
  if (constraint != nullptr) constraint->EndTrial();
  return count;
}

Prefix LiveSequence::RestorablePrefix() const {
  return FirstTokens(next_prompt_score < prompt_tokens_ ? next_prompt_score - 1
                                                        : known_tokens());
}

bool LiveSequence::WantsPromptScores(int64_t begin) const {
  return next_prompt_score < prompt_tokens_ && begin >= next_prompt_score - 1 &&
         begin + 1 < prompt_tokens_;
}

int64_t LiveSequence::CutForPromptScores(int64_t begin,
                                         int64_t num_tokens) const {
  if (next_prompt_score >= prompt_tokens_) return num_tokens;
  return std::min(num_tokens, begin < next_prompt_score - 1
                                  ? next_prompt_score - 1 - begin
                                  : kMaxScoredRows);
}

SequenceView LiveSequence::View() const {
  return {.phase = phase,
          .known_tokens = known_tokens(),
          .computed_tokens = state == nullptr ? 0 : state->num_tokens,
          .draft_tokens = static_cast<int64_t>(drafts.size()),
          .priority = request.priority,
          .client = request.client};
}

GenerationUsage LiveSequence::Usage(absl::Time now) const {
  GenerationUsage usage;
  usage.prompt_tokens = prompt_tokens_;
  usage.cached_prompt_tokens = cached_prompt_tokens;
  usage.output_tokens = known_tokens() - prompt_tokens_;
  usage.queue_time = admitted.value_or(now) - submitted;
  if (admitted.has_value()) {
    usage.prefill_time = first_token.value_or(now) - *admitted;
  }
  if (first_token.has_value()) usage.decode_time = now - *first_token;
  return usage;
}

}  // namespace switchyard::attention_worker
