#include "router/openai/request.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/openai/cache_scope.h"
#include "router/openai/chat_messages.h"
#include "router/openai/errors.h"
#include "router/openai/field_reader.h"
#include "router/openai/output_fields.h"
#include "router/openai/sampling_fields.h"

namespace switchyard::router {
namespace {

constexpr size_t kMaxUserBytes = 512;
constexpr int kMaxTopLogprobs = 20;
constexpr int64_t kMaxTokens = int64_t{1} << 31;
constexpr double kMinTimeoutSeconds = 1e-3;
constexpr double kMaxTimeoutSeconds = 7 * 24 * 3600;

// Fields that would change the answer and that this server does not serve.
// Their neutral values (null, false, 0, {} and []) are accepted.
constexpr const char* kUnsupported[] = {
    "suffix",
    "use_beam_search",
    "input_ids",
    "functions",
    "function_call",
    "bad_words",
    "prompt_embeds",
    "chat_template",
    "logits_processors",
    "custom_logit_processor",
    "lora_path",
    "lora_request",
    "return_hidden_states",
    "audio",
};

// Fields that clients send and that change nothing here: known, for requests
// whose unknown fields are refused.
constexpr const char* kIgnored[] = {
    "model",
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "modalities",
    "prediction",
    "verbosity",
    "web_search_options",
    "spaces_between_special_tokens",
    "add_special_tokens",
    "length_penalty",
    "early_stopping",
    "documents",
    "chat_template_content_format",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "kv_transfer_params",
    "vllm_xargs",
    "return_cached_tokens_details",
    "session_params",
    "custom_params",
    "customized_labels",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "routed_dp_rank",
    "data_parallel_rank",
    "return_routed_experts",
};

bool IsNeutral(const Json& value) {
  switch (value.type()) {
    case Json::value_t::boolean:
      return !value.get<bool>();
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
    case Json::value_t::number_float:
      return value.get<double>() == 0;
    case Json::value_t::string:
    case Json::value_t::array:
    case Json::value_t::object:
      return value.empty() ||
             (value.is_string() && value.get_ref<const std::string&>().empty());
    default:
      return false;
  }
}

absl::Status RefuseUnsupported(FieldReader* reader) {
  for (const char* name : kUnsupported) {
    const Json* value = reader->Find(name);
    if (value != nullptr && !IsNeutral(*value)) {
      return ParamError(name, "is not supported by this server");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadSeed(FieldReader* reader, GenerationParams* out) {
  const Json* seed = reader->Find("seed");
  if (seed == nullptr) return absl::OkStatus();
  out->has_seed = true;
  if (seed->is_number_unsigned()) {
    out->sampling.seed = seed->get<uint64_t>();
  } else {
    out->sampling.seed = static_cast<uint64_t>(
        reader->Int("seed", INT64_MIN, INT64_MAX).value_or(0));
  }
  return reader->status();
}

absl::Status ReadStreaming(FieldReader* reader, GenerationParams* out) {
  out->stream = reader->Bool("stream").value_or(false);
  const Json* options = reader->Find("stream_options");
  if (options == nullptr) return reader->status();
  if (!options->is_object()) {
    return ParamError("stream_options", "must be an object");
  }
  FieldReader inner(*options, "stream_options.");
  out->continuous_usage_stats =
      inner.Bool("continuous_usage_stats").value_or(false);
  out->include_usage =
      inner.Bool("include_usage").value_or(out->continuous_usage_stats);
  SY_RETURN_IF_ERROR(inner.status());
  return reader->status();
}

// As vLLM has it.
absl::Status ReadPromptLogprobs(FieldReader* reader, GenerationParams* out) {
  constexpr char kName[] = "prompt_logprobs";
  const auto top = reader->Int(kName, -1, INT32_MAX);
  if (!top) return reader->status();
  if (*top < 0) {
    return ParamError(kName,
                      absl::StrCat("-1, which is the whole vocabulary, is not "
                                   "served; give 0 to ",
                                   kMaxTopLogprobs));
  }
  if (*top > kMaxTopLogprobs) {
    return ParamError(kName, absl::StrCat("must be at most ", kMaxTopLogprobs,
                                          ", not ", *top));
  }
  if (out->stream) {
    return ParamError(kName, "is not available when stream is true");
  }
  out->prompt_logprobs = static_cast<int>(*top);
  return absl::OkStatus();
}

// Everything but logprobs, whose type differs between the APIs.
absl::Status ReadShared(FieldReader* reader, const RequestDefaults& defaults,
                        size_t num_prompts, int64_t least_tokens,
                        GenerationParams* out) {
  SY_RETURN_IF_ERROR(RefuseUnsupported(reader));
  reader->String("model");  // any name is served; its type is still checked
  ReadSampling(reader, defaults.generation, &out->sampling);
  SY_RETURN_IF_ERROR(
      ReadTokenRules(reader, "min_tokens", defaults.vocab_size, out));
  SY_ASSIGN_OR_RETURN(out->output_format, ReadOutputFormat(reader));
  SY_ASSIGN_OR_RETURN(out->cache_scopes, ReadCacheScopes(reader, num_prompts));
  SY_RETURN_IF_ERROR(ReadSeed(reader, out));
  out->max_tokens = reader->Int("max_tokens", least_tokens, kMaxTokens);
  if (const auto newer = reader->Int("max_completion_tokens", 1, kMaxTokens)) {
    out->max_tokens = newer;
  }
  out->n =
      static_cast<int>(reader->Int("n", 1, defaults.max_choices).value_or(1));
  if (const auto best_of = reader->Int("best_of", 1, INT32_MAX);
      best_of && *best_of != out->n) {
    reader->Fail("best_of", "is not supported unless it equals n");
  }
  out->ignore_eos = reader->Bool("ignore_eos").value_or(false);
  out->include_stop_str_in_output =
      reader->Bool("include_stop_str_in_output")
          .value_or(reader->Bool("no_stop_trim").value_or(false));
  out->tokens_as_ids =
      reader->Bool("return_tokens_as_token_ids").value_or(false);
  out->truncate_prompt_tokens =
      reader->Int("truncate_prompt_tokens", -1, kMaxTokens);
  if (out->truncate_prompt_tokens == 0) {
    reader->Fail(
        "truncate_prompt_tokens",
        "must be a number of tokens, or -1 for what the context holds");
  }
  out->skip_special_tokens = reader->Bool("skip_special_tokens").value_or(true);
  out->return_token_ids = reader->Bool("return_token_ids").value_or(false);
  out->priority = static_cast<int>(
      reader->Int("priority", INT32_MIN, INT32_MAX).value_or(0));
  out->client = reader->String("user").value_or("");
  if (out->client.size() > kMaxUserBytes) {
    reader->Fail("user",
                 absl::StrCat("has more than ", kMaxUserBytes, " bytes"));
  }
  for (const char* name : {"request_id", "rid"}) {
    out->request_id = reader->String(name).value_or(out->request_id);
  }
  if (out->request_id.size() > kMaxUserBytes) {
    reader->Fail("request_id",
                 absl::StrCat("has more than ", kMaxUserBytes, " bytes"));
  }
  if (const auto seconds =
          reader->Number("timeout", kMinTimeoutSeconds, kMaxTimeoutSeconds)) {
    out->timeout = absl::Seconds(*seconds);
  }
  SY_RETURN_IF_ERROR(ReadStop(reader, defaults.vocab_size, out));
  SY_RETURN_IF_ERROR(ReadStreaming(reader, out));
  SY_RETURN_IF_ERROR(ReadPromptLogprobs(reader, out));
  return reader->status();
}

absl::Status ReadTools(FieldReader* reader, ChatRequest* out) {
  const Json* tools = reader->Find("tools");
  SY_ASSIGN_OR_RETURN(out->prompt.tools,
                      NormaliseTools(tools == nullptr ? Json() : *tools));
  SY_ASSIGN_OR_RETURN(out->tool_choice,
                      ReadToolChoice(reader, out->prompt.tools));
  // A model that must not call does not see the tools.
  if (out->tool_choice.kind == ToolChoice::Kind::kNone) {
    out->prompt.tools = nullptr;
  }
  out->parallel_tool_calls = reader->Bool("parallel_tool_calls").value_or(true);
  out->parse_tool_calls = !out->prompt.tools.is_null();
  return reader->status();
}

absl::Status ReadTemplateArguments(FieldReader* reader, ChatPrompt* out) {
  if (const Json* kwargs = reader->Find("chat_template_kwargs")) {
    if (!kwargs->is_object()) {
      return ParamError("chat_template_kwargs", "must be an object");
    }
    out->kwargs = *kwargs;
  }
  for (const char* name : {"enable_thinking", "preserve_thinking",
                           "add_generation_prompt", "continue_final_message"}) {
    const auto top_level = reader->Bool(name);
    if (top_level) out->kwargs[name] = *top_level;
    const auto it = out->kwargs.find(name);
    if (it == out->kwargs.end()) continue;
    if (it->is_null()) {
      out->kwargs.erase(it);
    } else if (!it->is_boolean()) {
      return ParamError(absl::StrCat("chat_template_kwargs.", name),
                        "must be true or false");
    }
  }
  const bool continues = out->kwargs.value("continue_final_message", false);
  if (!out->kwargs.contains("add_generation_prompt")) {
    out->kwargs["add_generation_prompt"] = !continues;
  }
  if (continues && out->kwargs["add_generation_prompt"] == true) {
    return ParamError("continue_final_message",
                      "cannot be true together with add_generation_prompt");
  }
  return reader->status();
}

// The names under which clients ask for less reasoning, or for none.
absl::Status ReadReasoning(FieldReader* reader, ChatRequest* out) {
  Json& kwargs = out->prompt.kwargs;
  if (const auto effort = reader->String("reasoning_effort");
      effort && !kwargs.contains("enable_thinking")) {
    kwargs["enable_thinking"] = *effort != "none";
  }
  for (const char* name : {"thinking_token_budget", "thinking_budget",
                           "reasoning_budget_tokens", "max_reasoning_tokens"}) {
    const auto budget = reader->Int(name, -1, kMaxTokens);
    if (budget) out->thinking_budget = budget;
  }
  if (const auto it = kwargs.find("thinking_budget"); it != kwargs.end()) {
    FieldReader inner(kwargs, "chat_template_kwargs.");
    const auto budget = inner.Int("thinking_budget", -1, kMaxTokens);
    SY_RETURN_IF_ERROR(inner.status());
    if (!out->thinking_budget) out->thinking_budget = budget;
  }
  // As llama.cpp has it: no limit.
  if (out->thinking_budget && *out->thinking_budget < 0) {
    out->thinking_budget = absl::nullopt;
  }
  out->separate_reasoning = reader->Bool("separate_reasoning").value_or(true);
  if (!reader->Bool("stream_reasoning").value_or(true)) {
    out->params.reasoning = ReasoningOutput::kWhole;
  }
  if (!reader->Bool("include_reasoning").value_or(true)) {
    out->params.reasoning = ReasoningOutput::kHidden;
  }
  return reader->status();
}

absl::Status ReadPrompts(const Json& prompt, int64_t vocab_size,
                         std::vector<Prompt>* out) {
  if (prompt.is_string()) {
    out->emplace_back(prompt.get<std::string>());
    return absl::OkStatus();
  }
  if (!prompt.is_array() || prompt.empty()) {
    return ParamError("prompt",
                      "must be a string, an array of token ids, or an array of "
                      "either, and not empty");
  }
  if (prompt[0].is_number()) {
    SY_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                        ParseTokenIds(prompt, "prompt", vocab_size));
    out->emplace_back(std::move(ids));
    return absl::OkStatus();
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    const std::string path = absl::StrCat("prompt[", i, "]");
    if (prompt[i].is_string()) {
      out->emplace_back(prompt[i].get<std::string>());
    } else if (prompt[i].is_array()) {
      SY_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                          ParseTokenIds(prompt[i], path, vocab_size));
      out->emplace_back(std::move(ids));
    } else {
      return ParamError(path, "must be a string or an array of token ids");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBody(const Json& body) {
  if (body.is_object()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the request's body must be a JSON object, not ",
                   std::string(JsonTypeName(body))));
}

}  // namespace

absl::StatusOr<Json> ParseBody(absl::string_view body) {
  absl::StatusOr<Json> json = ParseJson(body);
  if (!json.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the request's body is not valid JSON: ",
                     std::string(json.status().message())));
  }
  SY_RETURN_IF_ERROR(CheckBody(*json));
  return json;
}

absl::StatusOr<ChatRequest> ParseChatRequest(const Json& body,
                                             const RequestDefaults& defaults) {
  SY_RETURN_IF_ERROR(CheckBody(body));
  FieldReader reader(body);
  ChatRequest request;
  GenerationParams& params = request.params;
  const Json* messages = reader.Find("messages");
  if (messages == nullptr) return ParamError("messages", "is missing");
  SY_ASSIGN_OR_RETURN(request.prompt.messages, NormaliseMessages(*messages));
  SY_RETURN_IF_ERROR(ReadShared(&reader, defaults, /*num_prompts=*/1,
                                /*least_tokens=*/1, &params));
  SY_RETURN_IF_ERROR(ReadTools(&reader, &request));
  SY_RETURN_IF_ERROR(ReadTemplateArguments(&reader, &request.prompt));
  params.logprobs = reader.Bool("logprobs").value_or(false);
  params.top_logprobs = static_cast<int>(
      reader.Int("top_logprobs", 0, kMaxTopLogprobs).value_or(0));
  if (params.top_logprobs > 0 && !params.logprobs) {
    reader.Fail("top_logprobs", "needs logprobs: true");
  }
  SY_RETURN_IF_ERROR(ReadReasoning(&reader, &request));
  if (defaults.strict) reader.RefuseUnknown(kIgnored);
  SY_RETURN_IF_ERROR(reader.status());
  return request;
}

absl::StatusOr<CompletionRequest> ParseCompletionRequest(
    const Json& body, const RequestDefaults& defaults) {
  SY_RETURN_IF_ERROR(CheckBody(body));
  FieldReader reader(body);
  CompletionRequest request;
  GenerationParams& params = request.params;
  const Json* prompt = reader.Find("prompt");
  if (prompt == nullptr) return ParamError("prompt", "is missing");
  SY_RETURN_IF_ERROR(
      ReadPrompts(*prompt, defaults.vocab_size, &request.prompts));
  SY_RETURN_IF_ERROR(ReadShared(&reader, defaults, request.prompts.size(),
                                /*least_tokens=*/0, &params));
  // OpenAI's default for this API.
  if (!params.max_tokens) params.max_tokens = 16;
  if (const auto top = reader.Int("logprobs", 0, kMaxTopLogprobs)) {
    params.logprobs = true;
    params.top_logprobs = static_cast<int>(*top);
  }
  request.echo = reader.Bool("echo").value_or(false);
  if (params.max_tokens == 0) {
    if (!request.echo) reader.Fail("max_tokens", "can be 0 only with echo");
    request.prefill_only = true;
    params.max_tokens = 1;
  }
  if (request.prompts.size() * static_cast<size_t>(params.n) >
      static_cast<size_t>(defaults.max_choices)) {
    reader.Fail(
        "prompt",
        absl::StrCat(request.prompts.size(), " prompts times n = ", params.n,
                     " are more than ", defaults.max_choices, " choices"));
  }
  if (defaults.strict) reader.RefuseUnknown(kIgnored);
  SY_RETURN_IF_ERROR(reader.status());
  return request;
}

}  // namespace switchyard::router
