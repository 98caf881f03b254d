#include "attention_worker/core/request_limits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

constexpr double kMaxBias = 100;
constexpr int64_t kMaxClosingIds = 64;

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// NaN fails, because every comparison with it is false.
absl::Status CheckRange(const char* name, double value, double low,
                        double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Invalid(name, " is ", value, "; it must be in [", low, ", ", high,
                 "]");
}

absl::Status CheckSampling(const SamplingParams& params) {
  if (!(params.temperature >= 0) || !std::isfinite(params.temperature)) {
    return Invalid("temperature is ", params.temperature,
                   "; it must be 0 (greedy) or more");
  }
  if (!(params.top_p > 0 && params.top_p <= 1)) {
    return Invalid("top_p is ", params.top_p, "; it must be in (0, 1]");
  }
  SY_RETURN_IF_ERROR(CheckRange("min_p", params.min_p, 0, 1));
  SY_RETURN_IF_ERROR(
      CheckRange("presence_penalty", params.presence_penalty, -2, 2));
  SY_RETURN_IF_ERROR(
      CheckRange("frequency_penalty", params.frequency_penalty, -2, 2));
  if (!(params.repetition_penalty > 0) ||
      !std::isfinite(params.repetition_penalty)) {
    return Invalid("repetition_penalty is ", params.repetition_penalty,
                   "; it must be above 0");
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const char* name, const std::vector<int32_t>& ids,
                      int64_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size) {
      return Invalid(name, "[", i, "] is ", ids[i], ", but the vocabulary has ",
                     vocab_size, " tokens");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRules(const TokenRules& rules, int64_t vocab_size) {
  absl::flat_hash_set<int32_t> biased;
  for (const auto& [id, bias] : rules.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return Invalid("logit_bias is for token ", id,
                     ", but the vocabulary has ", vocab_size, " tokens");
    }
    SY_RETURN_IF_ERROR(CheckRange("logit_bias", bias, -kMaxBias, kMaxBias));
    if (!biased.insert(id).second) {
      return Invalid("logit_bias has token ", id, " twice");
    }
  }
  SY_RETURN_IF_ERROR(
      CheckIds("allowed_token_ids", rules.allowed_ids, vocab_size));
  SY_RETURN_IF_ERROR(CheckIds("stop_token_ids", rules.late_ids, vocab_size));
  const absl::flat_hash_set<int32_t> late(rules.late_ids.begin(),
                                          rules.late_ids.end());
  if (rules.min_tokens > 0 && !rules.allowed_ids.empty() &&
      absl::c_all_of(rules.allowed_ids,
                     [&](int32_t id) { return late.contains(id); })) {
    return Invalid("min_tokens is ", rules.min_tokens,
                   ", but every token of allowed_token_ids ends the output");
  }
  if (!rules.thinking) return absl::OkStatus();
  const ThinkingBudget& thinking = *rules.thinking;
  if (thinking.closing.empty() ||
      static_cast<int64_t>(thinking.closing.size()) > kMaxClosingIds) {
    return Invalid("thinking_budget has ", thinking.closing.size(),
                   " closing_ids; they must be 1 to ", kMaxClosingIds);
  }
  return CheckIds("thinking_budget.closing_ids", thinking.closing, vocab_size);
}

absl::Status CheckLengths(const GenerationRequest& request,
                          const RequestLimits& limits) {
  const int64_t prompt = static_cast<int64_t>(request.prompt_ids.size());
  const int64_t resumed =
      static_cast<int64_t>(request.resumed_output_ids.size());
  if (request.max_tokens < 1) {
    return Invalid("max_tokens is ", request.max_tokens,
                   "; it must be 1 or more");
  }
  if (resumed > request.max_tokens) {
    return Invalid("resumed_output_ids has ", resumed,
                   " tokens, more than max_tokens, ", request.max_tokens);
  }
  if (prompt >= limits.max_model_len) {
    return Invalid("the prompt has ", prompt,
                   " tokens; this model's context length is ",
                   limits.max_model_len, " tokens, prompt and output together");
  }
  if (prompt + resumed > limits.max_model_len) {
    return Invalid("the prompt and resumed_output_ids have ", prompt + resumed,
                   " tokens; this model's context length is ",
                   limits.max_model_len);
  }
  const int64_t tokens = limits.MaxTokensOf(request);
  if (tokens > limits.LongestSequence()) {
    return Invalid(
        "the prompt's ", prompt, " tokens and max_tokens make ", tokens,
        " tokens, whose state takes ", limits.state_costs.BytesFor(tokens - 1),
        " bytes; the budget of all states is ", limits.state_memory_bytes,
        " bytes, enough for ", limits.LongestSequence(),
        " tokens; lower max_tokens or raise --state-memory");
  }
  return absl::OkStatus();
}

}  // namespace

int64_t RequestLimits::MaxTokensOf(const GenerationRequest& request) const {
  const int64_t prompt = static_cast<int64_t>(request.prompt_ids.size());
  // max_tokens may be anything up to 2^63 - 1.
  const int64_t room = std::max<int64_t>(max_model_len - prompt, 0);
  return prompt + std::min(request.max_tokens, room);
}

int64_t RequestLimits::LongestSequence() const {
  return state_costs.TokensFor(state_memory_bytes) + 1;
}

absl::Status CheckRequest(const GenerationRequest& request,
                          const RequestLimits& limits) {
  if (request.id.empty()) return Invalid("the request has no id");
  if (static_cast<int64_t>(request.id.size()) > kMaxRequestIdBytes) {
    return Invalid("the request's id has ", request.id.size(),
                   " bytes; at most ", kMaxRequestIdBytes, " are served");
  }
  if (request.prompt_ids.empty()) return Invalid("the prompt has no tokens");
  SY_RETURN_IF_ERROR(
      CheckIds("prompt_ids", request.prompt_ids, limits.vocab_size));
  SY_RETURN_IF_ERROR(CheckIds("resumed_output_ids", request.resumed_output_ids,
                              limits.vocab_size));
  if (static_cast<int64_t>(request.stop_token_ids.size()) > kMaxStopTokenIds) {
    return Invalid("stop_token_ids has ", request.stop_token_ids.size(),
                   " tokens; at most ", kMaxStopTokenIds, " are served");
  }
  if (request.num_top_logprobs < 0 ||
      request.num_top_logprobs > kMaxTopLogprobs) {
    return Invalid("num_top_logprobs is ", request.num_top_logprobs,
                   "; it must be in [0, ", kMaxTopLogprobs, "]");
  }
  if (request.num_top_logprobs > 0 && !request.want_logprobs) {
    return Invalid("num_top_logprobs is ", request.num_top_logprobs,
                   ", but want_logprobs is not set");
  }
  if (request.prompt_logprobs_from != -1 &&
      (request.prompt_logprobs_from < 1 || !request.want_logprobs)) {
    return Invalid("prompt_logprobs_from is ", request.prompt_logprobs_from,
                   "; it must be 1 or more, and want_logprobs set");
  }
  SY_RETURN_IF_ERROR(CheckSampling(request.sampling));
  SY_RETURN_IF_ERROR(CheckRules(request.sampling.rules, limits.vocab_size));
  return CheckLengths(request, limits);
}

}  // namespace switchyard::attention_worker
