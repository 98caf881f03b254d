#include "attention_worker/service/generation_codec.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "attention_worker/core/request_limits.h"
#include "attention_worker/state/prefix.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

// Ids are int32 everywhere but on the wire.
absl::StatusOr<int32_t> IdFromProto(const char* field, uint32_t id) {
  if (id > static_cast<uint32_t>(std::numeric_limits<int32_t>::max())) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " is ", id, ", above 2^31 - 1"));
  }
  return static_cast<int32_t>(id);
}

absl::StatusOr<std::vector<int32_t>> IdsFromProto(
    const char* field, const google::protobuf::RepeatedField<uint32_t>& ids) {
  std::vector<int32_t> out;
  out.reserve(ids.size());
  for (const uint32_t id : ids) {
    if (id > static_cast<uint32_t>(std::numeric_limits<int32_t>::max())) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, "[", out.size(), "] is ", id, ", above 2^31 - 1"));
    }
    out.push_back(static_cast<int32_t>(id));
  }
  return out;
}

absl::StatusOr<TokenRules> RulesFromProto(const v1::SamplingParams& params) {
  constexpr int kMaxBiases = 16384;
  TokenRules out;
  if (params.logit_bias_size() > kMaxBiases) {
    return absl::InvalidArgumentError(
        absl::StrCat("logit_bias has ", params.logit_bias_size(),
                     " entries; at most ", kMaxBiases, " are served"));
  }
  for (const v1::TokenBias& entry : params.logit_bias()) {
    SY_ASSIGN_OR_RETURN(const int32_t id,
                        IdFromProto("logit_bias.id", entry.id()));
    out.logit_bias.emplace_back(id, entry.bias());
  }
  SY_ASSIGN_OR_RETURN(
      out.allowed_ids,
      IdsFromProto("allowed_token_ids", params.allowed_token_ids()));
  out.min_tokens = params.min_tokens();
  if (!params.has_thinking_budget()) return out;
  const v1::ThinkingBudget& budget = params.thinking_budget();
  ThinkingBudget thinking;
  thinking.tokens = budget.tokens();
  if (budget.has_begin_id()) {
    SY_ASSIGN_OR_RETURN(
        thinking.begin_id,
        IdFromProto("thinking_budget.begin_id", budget.begin_id()));
  }
  SY_ASSIGN_OR_RETURN(thinking.end_id,
                      IdFromProto("thinking_budget.end_id", budget.end_id()));
  SY_ASSIGN_OR_RETURN(
      thinking.closing,
      IdsFromProto("thinking_budget.closing_ids", budget.closing_ids()));
  out.thinking = std::move(thinking);
  return out;
}

absl::StatusOr<SamplingParams> SamplingFromProto(
    const v1::SamplingParams& params) {
  SamplingParams out;
  if (params.has_temperature()) out.temperature = params.temperature();
  if (params.has_top_p()) out.top_p = params.top_p();
  out.top_k = params.top_k();
  out.min_p = params.min_p();
  out.presence_penalty = params.presence_penalty();
  out.frequency_penalty = params.frequency_penalty();
  if (params.has_repetition_penalty()) {
    out.repetition_penalty = params.repetition_penalty();
  }
  out.seed = params.seed();
  SY_ASSIGN_OR_RETURN(out.rules, RulesFromProto(params));
  return out;
}

absl::StatusOr<OutputFormat> OutputFormatFromProto(
    const v1::OutputFormat& format) {
  OutputFormat out;
  switch (format.kind()) {
    case v1::OutputFormat::JSON_SCHEMA:
      out.kind = grammar::GrammarKind::kJsonSchema;
      break;
    case v1::OutputFormat::REGEX:
      out.kind = grammar::GrammarKind::kRegex;
      break;
    case v1::OutputFormat::EBNF:
      out.kind = grammar::GrammarKind::kEbnf;
      break;
    case v1::OutputFormat::TOOL_CALLS:
      out.kind = grammar::GrammarKind::kToolCalls;
      break;
    case v1::OutputFormat::STRUCTURAL_TAG:
      out.kind = grammar::GrammarKind::kStructuralTag;
      break;
    default:  // of a newer router, or none
      return absl::InvalidArgumentError(absl::StrCat(
          "output_format.kind is ", static_cast<int>(format.kind()),
          ", which this worker does not know"));
  }
  switch (format.reasoning()) {
    case v1::OutputFormat::NONE:
      out.reasoning = OutputReasoning::kNone;
      break;
    case v1::OutputFormat::MAYBE:
      out.reasoning = OutputReasoning::kMaybe;
      break;
    case v1::OutputFormat::OPENED:
      out.reasoning = OutputReasoning::kOpened;
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "output_format.reasoning is ", static_cast<int>(format.reasoning()),
          ", which this worker does not know"));
  }
  out.text = format.text();
  return out;
}

v1::WorkerInfo::State StateToProto(WorkerState state) {
  switch (state) {
    case WorkerState::kLoading:
      return v1::WorkerInfo::LOADING;
    case WorkerState::kReady:
      return v1::WorkerInfo::READY;
    case WorkerState::kWaitingExperts:
      return v1::WorkerInfo::WAITING_EXPERTS;
    case WorkerState::kDraining:
      return v1::WorkerInfo::DRAINING;
  }
  return v1::WorkerInfo::STATE_UNSPECIFIED;
}

}  // namespace

absl::StatusOr<std::string> ScopeFromProto(const std::string& scope) {
  if (scope.size() > kMaxScopeBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("cache_scope has ", scope.size(), " bytes; at most ",
                     kMaxScopeBytes, " are served"));
  }
  return scope;
}

absl::StatusOr<GenerationRequest> GenerationRequestFromProto(
    const v1::GenerateRequest& request) {
  GenerationRequest out;
  out.id = request.request_id();
  SY_ASSIGN_OR_RETURN(out.prompt_ids,
                      IdsFromProto("prompt_ids", request.prompt_ids()));
  SY_ASSIGN_OR_RETURN(
      out.resumed_output_ids,
      IdsFromProto("resumed_output_ids", request.resumed_output_ids()));
  SY_ASSIGN_OR_RETURN(out.stop_token_ids,
                      IdsFromProto("stop_token_ids", request.stop_token_ids()));
  if (request.prefix_boundaries_size() > request.prompt_ids_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prefix_boundaries has ", request.prefix_boundaries_size(),
        " entries for a prompt of ", request.prompt_ids_size(), " tokens"));
  }
  out.prefix_boundaries.assign(request.prefix_boundaries().begin(),
                               request.prefix_boundaries().end());
  out.priority = request.priority();
  out.client = absl::Hash<std::string>()(request.client());
  SY_ASSIGN_OR_RETURN(out.cache_scope, ScopeFromProto(request.cache_scope()));
  SY_ASSIGN_OR_RETURN(out.sampling, SamplingFromProto(request.sampling()));
  if (out.sampling.rules.min_tokens > 0) {
    out.sampling.rules.late_ids = out.stop_token_ids;
  }
  if (request.has_output_format()) {
    SY_ASSIGN_OR_RETURN(out.format,
                        OutputFormatFromProto(request.output_format()));
  }
  out.max_tokens = request.max_tokens();
  out.want_logprobs = request.want_logprobs();
  if (request.has_prompt_logprobs_from()) {
    out.prompt_logprobs_from = request.prompt_logprobs_from();
  }
  // Larger than an int can be: as refused as anything above the limit.
  if (request.num_top_logprobs() > static_cast<uint32_t>(kMaxTopLogprobs)) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_top_logprobs is ", request.num_top_logprobs(),
                     "; it must be in [0, ", kMaxTopLogprobs, "]"));
  }
  out.num_top_logprobs = static_cast<int>(request.num_top_logprobs());
  return out;
}

absl::Status CheckFingerprint(const v1::GenerateRequest& request,
                              const WorkerInfo& info) {
  if (request.model_fingerprint().empty() ||
      request.model_fingerprint() == info.model_fingerprint) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the request is for the model with the fingerprint ",
                   request.model_fingerprint(), "; this worker's is ",
                   info.model_fingerprint));
}

v1::GenerateReply TokenToProto(const GeneratedToken& token) {
  v1::GenerateReply reply;
  v1::Token* out = reply.mutable_token();
  out->set_id(static_cast<uint32_t>(token.token.id));
  out->set_position(static_cast<uint64_t>(token.position));
  out->set_logprob(token.token.logprob);
  if (token.cached_prompt_tokens.has_value()) {
    out->set_cached_prompt_tokens(
        static_cast<uint64_t>(*token.cached_prompt_tokens));
  }
  if (token.token.rank > 0) {
    out->set_rank(static_cast<uint32_t>(token.token.rank));
  }
  for (const auto& [id, logprob] : token.token.top_logprobs) {
    v1::TokenLogprob* top = out->add_top_logprobs();
    top->set_id(static_cast<uint32_t>(id));
    top->set_logprob(logprob);
  }
  return reply;
}

v1::GenerateReply FinishedToProto(FinishReason reason,
                                  const GenerationUsage& usage) {
  v1::GenerateReply reply;
  v1::Finished* out = reply.mutable_finished();
  switch (reason) {
    case FinishReason::kStop:
      out->set_reason(v1::Finished::STOP);
      break;
    case FinishReason::kLength:
      out->set_reason(v1::Finished::LENGTH);
      break;
  }
  out->set_prompt_tokens(static_cast<uint64_t>(usage.prompt_tokens));
  out->set_cached_prompt_tokens(
      static_cast<uint64_t>(usage.cached_prompt_tokens));
  out->set_output_tokens(static_cast<uint64_t>(usage.output_tokens));
  // The machine's clock may be set back while a request runs.
  const auto seconds = [](absl::Duration duration) {
    return std::max(absl::ToDoubleSeconds(duration), 0.0);
  };
  out->set_queue_seconds(seconds(usage.queue_time));
  out->set_prefill_seconds(seconds(usage.prefill_time));
  out->set_decode_seconds(seconds(usage.decode_time));
  return reply;
}

void WorkerInfoToProto(const WorkerInfo& info, v1::WorkerInfo* out) {
  out->set_state(StateToProto(info.state));
  out->set_instance_id(info.instance_id);
  out->set_model_fingerprint(info.model_fingerprint);
  out->set_version(info.version);
  out->set_vocab_size(static_cast<uint64_t>(info.vocab_size));
  out->set_max_model_len(static_cast<uint64_t>(info.max_model_len));
  out->set_loading_progress(std::clamp(info.loading_progress, 0.0, 1.0));
  out->set_running_requests(static_cast<uint64_t>(info.load.running));
  out->set_waiting_requests(static_cast<uint64_t>(info.load.waiting));
  out->set_state_bytes_used(static_cast<uint64_t>(info.load.state_bytes_used));
  out->set_state_bytes_budget(
      static_cast<uint64_t>(info.load.state_bytes_budget));
  out->set_message(info.message);
  out->set_state_fixed_bytes(static_cast<uint64_t>(info.state_fixed_bytes));
  out->set_state_token_bytes(static_cast<uint64_t>(info.state_token_bytes));
  out->set_accepted_length(info.load.accepted_length);
}

}  // namespace switchyard::attention_worker
