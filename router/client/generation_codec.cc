#include "router/client/generation_codec.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace switchyard::router {
namespace {

constexpr int kMaxTopLogprobs = 20;

// Ids are int32 everywhere but on the wire.
absl::StatusOr<int32_t> IdFromProto(const char* field, uint32_t id) {
  if (id > static_cast<uint32_t>(std::numeric_limits<int32_t>::max())) {
    return absl::InternalError(
        absl::StrCat("the worker sent ", field, " ", id, ", above 2^31 - 1"));
  }
  return static_cast<int32_t>(id);
}

absl::StatusOr<int64_t> CountFromProto(const char* field, uint64_t count) {
  if (count > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::InternalError(absl::StrCat("the worker sent ", field, " ",
                                            count, ", above 2^63 - 1"));
  }
  return static_cast<int64_t>(count);
}

absl::StatusOr<absl::Duration> SecondsFromProto(const char* field,
                                                double seconds) {
  if (!(seconds >= 0)) {  // NaN too
    return absl::InternalError(
        absl::StrCat("the worker sent ", field, " ", seconds));
  }
  return absl::Seconds(seconds);
}

absl::Status IdsToProto(const char* field, const std::vector<int32_t>& ids,
                        google::protobuf::RepeatedField<uint32_t>* out) {
  out->Reserve(static_cast<int>(ids.size()));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, "[", i, "] is ", ids[i]));
    }
    out->Add(static_cast<uint32_t>(ids[i]));
  }
  return absl::OkStatus();
}

absl::Status RulesToProto(const SamplingParams& params,
                          v1::SamplingParams* out) {
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0) {
      return absl::InvalidArgumentError(absl::StrCat("logit_bias of id ", id));
    }
    v1::TokenBias* entry = out->add_logit_bias();
    entry->set_id(static_cast<uint32_t>(id));
    entry->set_bias(bias);
  }
  SY_RETURN_IF_ERROR(IdsToProto("allowed_token_ids", params.allowed_token_ids,
                                out->mutable_allowed_token_ids()));
  constexpr int64_t kMaxUint32 = std::numeric_limits<uint32_t>::max();
  if (params.min_tokens < 0 || params.min_tokens > kMaxUint32) {
    return absl::InvalidArgumentError(
        absl::StrCat("min_tokens is ", params.min_tokens));
  }
  out->set_min_tokens(static_cast<uint32_t>(params.min_tokens));
  if (!params.thinking_budget) return absl::OkStatus();
  const ThinkingBudget& budget = *params.thinking_budget;
  if (budget.tokens < 0 || budget.end_id < 0 ||
      budget.begin_id.value_or(0) < 0) {
    return absl::InvalidArgumentError(
        "the thinking budget has a negative number");
  }
  v1::ThinkingBudget* thinking = out->mutable_thinking_budget();
  thinking->set_tokens(
      static_cast<uint32_t>(std::min(budget.tokens, kMaxUint32)));
  if (budget.begin_id) {
    thinking->set_begin_id(static_cast<uint32_t>(*budget.begin_id));
  }
  thinking->set_end_id(static_cast<uint32_t>(budget.end_id));
  return IdsToProto("closing_ids", budget.closing_ids,
                    thinking->mutable_closing_ids());
}

absl::Status SamplingToProto(const SamplingParams& params,
                             v1::SamplingParams* out) {
  out->set_temperature(params.temperature);
  out->set_top_p(params.top_p);
  out->set_top_k(params.top_k);
  out->set_min_p(params.min_p);
  out->set_presence_penalty(params.presence_penalty);
  out->set_frequency_penalty(params.frequency_penalty);
  out->set_repetition_penalty(params.repetition_penalty);
  out->set_seed(params.seed);
  return RulesToProto(params, out);
}

void OutputFormatToProto(const OutputFormat& format, v1::OutputFormat* out) {
  switch (format.kind) {
    case OutputFormat::Kind::kJsonSchema:
      out->set_kind(v1::OutputFormat::JSON_SCHEMA);
      break;
    case OutputFormat::Kind::kRegex:
      out->set_kind(v1::OutputFormat::REGEX);
      break;
    case OutputFormat::Kind::kEbnf:
      out->set_kind(v1::OutputFormat::EBNF);
      break;
    case OutputFormat::Kind::kToolCalls:
      out->set_kind(v1::OutputFormat::TOOL_CALLS);
      break;
    case OutputFormat::Kind::kStructuralTag:
      out->set_kind(v1::OutputFormat::STRUCTURAL_TAG);
      break;
  }
  switch (format.reasoning) {
    case OutputFormat::Reasoning::kNone:
      out->set_reasoning(v1::OutputFormat::NONE);
      break;
    case OutputFormat::Reasoning::kMaybe:
      out->set_reasoning(v1::OutputFormat::MAYBE);
      break;
    case OutputFormat::Reasoning::kOpened:
      out->set_reasoning(v1::OutputFormat::OPENED);
      break;
  }
  out->set_text(format.text);
}

absl::StatusOr<AttentionWorkerInfo::State> StateFromProto(
    v1::WorkerInfo::State state) {
  switch (state) {
    case v1::WorkerInfo::LOADING:
      return AttentionWorkerInfo::State::kLoading;
    case v1::WorkerInfo::READY:
      return AttentionWorkerInfo::State::kReady;
    case v1::WorkerInfo::WAITING_EXPERTS:
      return AttentionWorkerInfo::State::kWaitingExperts;
    case v1::WorkerInfo::DRAINING:
      return AttentionWorkerInfo::State::kDraining;
    default:  // of a newer worker, or none
      return absl::InternalError(
          absl::StrCat("the worker sent state ", static_cast<int>(state)));
  }
}

}  // namespace

absl::StatusOr<v1::GenerateRequest> TokenRequestToProto(
    const TokenRequest& request, absl::string_view model_fingerprint) {
  constexpr int64_t kMaxUint32 = std::numeric_limits<uint32_t>::max();
  if (request.max_tokens < 0 || request.max_tokens > kMaxUint32) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens is ", request.max_tokens,
                     "; it must be in [1, ", kMaxUint32, "]"));
  }
  if (request.num_top_logprobs < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_top_logprobs is ", request.num_top_logprobs));
  }
  v1::GenerateRequest out;
  out.set_request_id(request.id);
  SY_RETURN_IF_ERROR(
      IdsToProto("prompt_ids", request.prompt_ids, out.mutable_prompt_ids()));
  SY_RETURN_IF_ERROR(IdsToProto("resumed_output_ids",
                                request.resumed_output_ids,
                                out.mutable_resumed_output_ids()));
  SY_RETURN_IF_ERROR(IdsToProto("stop_token_ids", request.stop_token_ids,
                                out.mutable_stop_token_ids()));
  for (const int64_t boundary : request.prefix_boundaries) {
    out.add_prefix_boundaries(static_cast<uint32_t>(boundary));
  }
  SY_RETURN_IF_ERROR(SamplingToProto(request.sampling, out.mutable_sampling()));
  out.set_max_tokens(static_cast<uint32_t>(request.max_tokens));
  out.set_priority(request.priority);
  out.set_client(request.client);
  out.set_cache_scope(request.cache_scope);
  if (request.output_format) {
    OutputFormatToProto(*request.output_format, out.mutable_output_format());
  }
  out.set_want_logprobs(request.want_logprobs);
  out.set_num_top_logprobs(static_cast<uint32_t>(request.num_top_logprobs));
  if (request.prompt_logprobs_from) {
    if (*request.prompt_logprobs_from < 1 ||
        *request.prompt_logprobs_from > kMaxUint32) {
      return absl::InvalidArgumentError(absl::StrCat(
          "prompt_logprobs_from is ", *request.prompt_logprobs_from));
    }
    out.set_prompt_logprobs_from(
        static_cast<uint32_t>(*request.prompt_logprobs_from));
  }
  out.set_model_fingerprint(std::string(model_fingerprint));
  return out;
}

absl::StatusOr<TokenEvent> TokenEventFromProto(const v1::Token& token) {
  TokenEvent event;
  SY_ASSIGN_OR_RETURN(event.id, IdFromProto("token.id", token.id()));
  SY_ASSIGN_OR_RETURN(event.position,
                      CountFromProto("token.position", token.position()));
  event.logprob = token.logprob();
  event.rank = token.rank();
  if (token.top_logprobs_size() > kMaxTopLogprobs) {
    return absl::InternalError(absl::StrCat("the worker sent ",
                                            token.top_logprobs_size(),
                                            " top_logprobs for one token"));
  }
  for (const v1::TokenLogprob& top : token.top_logprobs()) {
    SY_ASSIGN_OR_RETURN(const int32_t id,
                        IdFromProto("token.top_logprobs.id", top.id()));
    event.top_logprobs.emplace_back(id, top.logprob());
  }
  if (token.has_cached_prompt_tokens()) {
    SY_ASSIGN_OR_RETURN(event.cached_prompt_tokens,
                        CountFromProto("token.cached_prompt_tokens",
                                       token.cached_prompt_tokens()));
  }
  return event;
}

absl::StatusOr<TokenOutcome> TokenOutcomeFromProto(
    const v1::Finished& finished) {
  TokenOutcome outcome;
  switch (finished.reason()) {
    case v1::Finished::STOP:
      outcome.finish = TokenFinish::kStop;
      break;
    case v1::Finished::LENGTH:
      outcome.finish = TokenFinish::kLength;
      break;
    default:
      return absl::InternalError(
          absl::StrCat("the worker sent finished.reason ",
                       static_cast<int>(finished.reason())));
  }
  TokenUsage& usage = outcome.usage;
  SY_ASSIGN_OR_RETURN(
      usage.prompt_tokens,
      CountFromProto("finished.prompt_tokens", finished.prompt_tokens()));
  SY_ASSIGN_OR_RETURN(usage.cached_prompt_tokens,
                      CountFromProto("finished.cached_prompt_tokens",
                                     finished.cached_prompt_tokens()));
  SY_ASSIGN_OR_RETURN(
      usage.output_tokens,
      CountFromProto("finished.output_tokens", finished.output_tokens()));
  SY_ASSIGN_OR_RETURN(
      usage.queue_time,
      SecondsFromProto("finished.queue_seconds", finished.queue_seconds()));
  SY_ASSIGN_OR_RETURN(
      usage.prefill_time,
      SecondsFromProto("finished.prefill_seconds", finished.prefill_seconds()));
  SY_ASSIGN_OR_RETURN(
      usage.decode_time,
      SecondsFromProto("finished.decode_seconds", finished.decode_seconds()));
  return outcome;
}

absl::StatusOr<AttentionWorkerInfo> AttentionWorkerInfoFromProto(
    const v1::WorkerInfo& info) {
  AttentionWorkerInfo out;
  SY_ASSIGN_OR_RETURN(out.state, StateFromProto(info.state()));
  out.instance_id = info.instance_id();
  out.model_fingerprint = info.model_fingerprint();
  out.version = info.version();
  SY_ASSIGN_OR_RETURN(out.vocab_size,
                      CountFromProto("vocab_size", info.vocab_size()));
  SY_ASSIGN_OR_RETURN(out.max_model_len,
                      CountFromProto("max_model_len", info.max_model_len()));
  if (!(info.loading_progress() >= 0 && info.loading_progress() <= 1)) {
    return absl::InternalError(absl::StrCat("the worker sent loading_progress ",
                                            info.loading_progress()));
  }
  out.loading_progress = info.loading_progress();
  SY_ASSIGN_OR_RETURN(
      out.running_requests,
      CountFromProto("running_requests", info.running_requests()));
  SY_ASSIGN_OR_RETURN(
      out.waiting_requests,
      CountFromProto("waiting_requests", info.waiting_requests()));
  SY_ASSIGN_OR_RETURN(
      out.state_bytes_used,
      CountFromProto("state_bytes_used", info.state_bytes_used()));
  SY_ASSIGN_OR_RETURN(
      out.state_bytes_budget,
      CountFromProto("state_bytes_budget", info.state_bytes_budget()));
  out.message = info.message();
  SY_ASSIGN_OR_RETURN(
      out.state_fixed_bytes,
      CountFromProto("state_fixed_bytes", info.state_fixed_bytes()));
  SY_ASSIGN_OR_RETURN(
      out.state_token_bytes,
      CountFromProto("state_token_bytes", info.state_token_bytes()));
  if (!(info.accepted_length() >= 0 && std::isfinite(info.accepted_length()))) {
    return absl::InternalError(absl::StrCat("the worker sent accepted_length ",
                                            info.accepted_length()));
  }
  out.accepted_length = info.accepted_length();
  return out;
}

}  // namespace switchyard::router
