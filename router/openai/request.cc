#include "router/openai/request.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/openai/chat_messages.h"
#include "router/openai/errors.h"
#include "router/openai/field_reader.h"

namespace switchyard::router {
namespace {

constexpr size_t kMaxUserBytes = 512;
constexpr int kMaxTopLogprobs = 20;
constexpr size_t kMaxStopStrings = 64;
constexpr size_t kMaxStopBytes = 4096;
constexpr size_t kMaxStopTokenIds = 128;
constexpr int64_t kMaxTokens = int64_t{1} << 31;
constexpr double kMinTimeoutSeconds = 1e-3;
constexpr double kMaxTimeoutSeconds = 7 * 24 * 3600;

// Fields that would change the answer and that this server does not serve.
// Their neutral values (null, false, 0, {} and []) are accepted.
constexpr const char* kUnsupported[] = {
    "logit_bias",
    "min_tokens",
    "stop_regex",
    "regex",
    "ebnf",
    "json_schema",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "prompt_logprobs",
    "suffix",
    "use_beam_search",
    "input_ids",
    "functions",
    "function_call",
    "thinking_token_budget",
    "bad_words",
    "allowed_token_ids",
    "prompt_embeds",
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
  if (const Json* format = reader->Find("response_format")) {
    if (!format->is_object() || !format->contains("type") ||
        (*format)["type"] != "text") {
      return ParamError("response_format",
                        "only {\"type\": \"text\"} is supported");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const Json& array,
                                                   const std::string& path,
                                                   int64_t vocab_size) {
  std::vector<int32_t> ids;
  ids.reserve(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    const Json& value = array[i];
    const bool integer = value.is_number_integer() &&
                         !(value.is_number_unsigned() &&
                           value.get<uint64_t>() > uint64_t{INT32_MAX});
    const int64_t id = integer ? value.get<int64_t>() : -1;
    if (id < 0 || id >= vocab_size) {
      return ParamError(
          absl::StrCat(path, "[", i, "]"),
          absl::StrCat(
              "must be a token id in [0, ", vocab_size, "), not ",
              value.is_binary() ? "a larger number" : DumpJson(value)));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void ReadSampling(FieldReader* reader, const model::GenerationConfig& config,
                  SamplingParams* out) {
  constexpr double kHuge = 1e6;
  out->temperature = reader->Number("temperature", 0, kHuge)
                         .value_or(config.do_sample ? config.temperature : 0.0);
  out->top_p = reader->Number("top_p", std::numeric_limits<double>::min(), 1)
                   .value_or(config.top_p);
  out->top_k = static_cast<int>(
      reader->Int("top_k", -1, INT32_MAX).value_or(config.top_k));
  if (out->top_k < 0) out->top_k = 0;
  out->min_p = reader->Number("min_p", 0, 1).value_or(config.min_p);
  out->presence_penalty =
      reader->Number("presence_penalty", -2, 2).value_or(0.0);
  out->frequency_penalty =
      reader->Number("frequency_penalty", -2, 2).value_or(0.0);
  out->repetition_penalty = reader->Number("repetition_penalty", 1e-6, kHuge)
                                .value_or(config.repetition_penalty);
}

absl::Status ReadStop(FieldReader* reader, int64_t vocab_size,
                      GenerationParams* out) {
  if (const Json* stop = reader->Find("stop")) {
    const Json list = stop->is_string() ? Json::array({*stop}) : *stop;
    if (!list.is_array()) {
      return ParamError("stop", "must be a string or an array of strings");
    }
    if (list.size() > kMaxStopStrings) {
      return ParamError("stop",
                        absl::StrCat("has ", list.size(), " strings; at most ",
                                     kMaxStopStrings, " are allowed"));
    }
    for (const Json& text : list) {
      if (!text.is_string()) {
        return ParamError("stop", "must be a string or an array of strings");
      }
      out->stop.push_back(text.get<std::string>());
      if (out->stop.back().size() > kMaxStopBytes) {
        return ParamError("stop", absl::StrCat("has a string of more than ",
                                               kMaxStopBytes, " bytes"));
      }
    }
  }
  if (const Json* ids = reader->Find("stop_token_ids")) {
    if (!ids->is_array() || ids->size() > kMaxStopTokenIds) {
      return ParamError("stop_token_ids",
                        absl::StrCat("must be an array of at most ",
                                     kMaxStopTokenIds, " token ids"));
    }
    SY_ASSIGN_OR_RETURN(out->stop_token_ids,
                        ParseTokenIds(*ids, "stop_token_ids", vocab_size));
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

// Everything but logprobs, whose type differs between the APIs.
absl::Status ReadShared(FieldReader* reader, const RequestDefaults& defaults,
                        GenerationParams* out) {
  SY_RETURN_IF_ERROR(RefuseUnsupported(reader));
  reader->String("model");  // any name is served; its type is still checked
  ReadSampling(reader, defaults.generation, &out->sampling);
  SY_RETURN_IF_ERROR(ReadSeed(reader, out));
  out->max_tokens = reader->Int("max_tokens", 1, kMaxTokens);
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
      reader->Bool("include_stop_str_in_output").value_or(false);
  out->skip_special_tokens = reader->Bool("skip_special_tokens").value_or(true);
  out->return_token_ids = reader->Bool("return_token_ids").value_or(false);
  out->priority = static_cast<int>(
      reader->Int("priority", INT32_MIN, INT32_MAX).value_or(0));
  out->client = reader->String("user").value_or("");
  if (out->client.size() > kMaxUserBytes) {
    reader->Fail("user",
                 absl::StrCat("has more than ", kMaxUserBytes, " bytes"));
  }
  if (const auto seconds =
          reader->Number("timeout", kMinTimeoutSeconds, kMaxTimeoutSeconds)) {
    out->timeout = absl::Seconds(*seconds);
  }
  SY_RETURN_IF_ERROR(ReadStop(reader, defaults.vocab_size, out));
  SY_RETURN_IF_ERROR(ReadStreaming(reader, out));
  return reader->status();
}

absl::Status ReadTools(FieldReader* reader, ChatRequest* out) {
  const Json* tools = reader->Find("tools");
  SY_ASSIGN_OR_RETURN(out->prompt.tools,
                      NormaliseTools(tools == nullptr ? Json() : *tools));
  bool may_call = true;
  if (const Json* choice = reader->Find("tool_choice")) {
    if (*choice == "none") {
      may_call = false;
    } else if (*choice != "auto") {
      return ParamError("tool_choice",
                        "only 'auto' and 'none' are supported: a call cannot "
                        "be forced");
    }
  }
  // A model that must not call does not see the tools.
  if (!may_call) out->prompt.tools = nullptr;
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
  for (const char* name :
       {"enable_thinking", "add_generation_prompt", "continue_final_message"}) {
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

absl::StatusOr<ChatRequest> ParseChatRequest(const Json& body,
                                             const RequestDefaults& defaults) {
  SY_RETURN_IF_ERROR(CheckBody(body));
  FieldReader reader(body);
  ChatRequest request;
  GenerationParams& params = request.params;
  const auto messages = body.find("messages");
  if (messages == body.end()) return ParamError("messages", "is missing");
  SY_ASSIGN_OR_RETURN(request.prompt.messages, NormaliseMessages(*messages));
  SY_RETURN_IF_ERROR(ReadShared(&reader, defaults, &params));
  SY_RETURN_IF_ERROR(ReadTools(&reader, &request));
  SY_RETURN_IF_ERROR(ReadTemplateArguments(&reader, &request.prompt));
  params.logprobs = reader.Bool("logprobs").value_or(false);
  params.top_logprobs = static_cast<int>(
      reader.Int("top_logprobs", 0, kMaxTopLogprobs).value_or(0));
  if (params.top_logprobs > 0 && !params.logprobs) {
    reader.Fail("top_logprobs", "needs logprobs: true");
  }
  request.separate_reasoning = reader.Bool("separate_reasoning").value_or(true);
  if (!reader.status().ok()) return reader.status();
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
  SY_RETURN_IF_ERROR(ReadShared(&reader, defaults, &params));
  // OpenAI's default for this API.
  if (!params.max_tokens) params.max_tokens = 16;
  if (const auto top = reader.Int("logprobs", 0, kMaxTopLogprobs)) {
    params.logprobs = true;
    params.top_logprobs = static_cast<int>(*top);
  }
  request.echo = reader.Bool("echo").value_or(false);
  if (request.echo && params.logprobs) {
    reader.Fail("echo", "is not supported together with logprobs");
  }
  if (request.prompts.size() * static_cast<size_t>(params.n) >
      static_cast<size_t>(defaults.max_choices)) {
    reader.Fail(
        "prompt",
        absl::StrCat(request.prompts.size(), " prompts times n = ", params.n,
                     " are more than ", defaults.max_choices, " choices"));
  }
  if (!reader.status().ok()) return reader.status();
  return request;
}

}  // namespace switchyard::router
