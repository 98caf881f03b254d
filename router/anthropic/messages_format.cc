#include "router/anthropic/messages_format.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "router/text/json_scanner.h"

namespace switchyard::router {
namespace {

std::string Event(absl::string_view type, Json fields) {
  Json data = {{"type", std::string(type)}};
  for (auto& [key, value] : fields.items()) data[key] = std::move(value);
  return absl::StrCat("event: ", type, "\ndata: ", DumpJson(data), "\n\n");
}

Json ErrorObject(const ApiError& error) {
  const char* type = "invalid_request_error";
  switch (error.http_status) {
    case 401:
      type = "authentication_error";
      break;
    case 403:
      type = "permission_error";
      break;
    case 404:
      type = "not_found_error";
      break;
    case 413:
      type = "request_too_large";
      break;
    case 429:
      type = "rate_limit_error";
      break;
    case 503:
      type = "overloaded_error";
      break;
    case 504:
      type = "timeout_error";
      break;
    default:
      if (error.http_status >= 500) type = "api_error";
  }
  return {{"type", "error"},
          {"error", {{"type", type}, {"message", error.message}}}};
}

// This API counts what came from a cache apart.
Json UsageObject(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens}};
}

// stop_reason and stop_sequence.
Json StopFields(const std::string& finish_reason, const Json& stop_reason) {
  const char* reason = "end_turn";
  if (finish_reason == "length") reason = "max_tokens";
  if (finish_reason == "tool_calls") reason = "tool_use";
  Json sequence = nullptr;
  if (finish_reason == "stop" && stop_reason.is_string()) {
    reason = "stop_sequence";
    sequence = stop_reason;
  }
  return {{"stop_reason", reason}, {"stop_sequence", std::move(sequence)}};
}

}  // namespace

HttpResponse AnthropicError(const ApiError& error) {
  HttpResponse response = JsonResponse(error.http_status, ErrorObject(error));
  AddErrorHeaders(error, &response);
  return response;
}

Json AnthropicFormat::Message() const {
  return {{"id", id_},
          {"type", "message"},
          {"role", "assistant"},
          {"model", model_},
          {"content", Json::array()},
          {"stop_reason", nullptr},
          {"stop_sequence", nullptr}};
}

std::string AnthropicFormat::CallId(int call) const {
  return absl::StrCat("toolu_", absl::StripPrefix(id_, "msg_"), "_", call);
}

void AnthropicFormat::OpenBlock(Block kind, Json block, std::string* events) {
  CloseBlock(events);
  open_ = kind;
  *events +=
      Event("content_block_start",
            {{"index", num_blocks_++}, {"content_block", std::move(block)}});
}

void AnthropicFormat::CloseBlock(std::string* events) {
  if (open_ == Block::kNone) return;
  if (open_ == Block::kThinking) {
    // Clients keep it and send it back; nothing here looks at it.
    Delta({{"type", "signature_delta"}, {"signature", id_}}, events);
  }
  open_ = Block::kNone;
  *events += Event("content_block_stop", {{"index", num_blocks_ - 1}});
}

void AnthropicFormat::Delta(Json delta, std::string* events) const {
  *events += Event("content_block_delta",
                   {{"index", num_blocks_ - 1}, {"delta", std::move(delta)}});
}

std::string AnthropicFormat::Update(const ChoiceUpdate& update,
                                    absl::FunctionRef<Usage()>) {
  std::string events;
  if (!std::exchange(started_, true)) {
    Json message = Message();
    message["usage"] = UsageObject(update.usage);
    events += Event("message_start", {{"message", std::move(message)}});
  }
  const OutputDelta& news = update.delta;
  if (!news.reasoning.empty()) {
    if (open_ != Block::kThinking) {
      OpenBlock(Block::kThinking,
                {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}},
                &events);
    }
    Delta({{"type", "thinking_delta"}, {"thinking", news.reasoning}}, &events);
  }
  if (!news.content.empty()) {
    if (open_ != Block::kText) {
      OpenBlock(Block::kText, {{"type", "text"}, {"text", ""}}, &events);
    }
    Delta({{"type", "text_delta"}, {"text", news.content}}, &events);
  }
  for (const OutputDelta::CallDelta& call : news.tool_calls) {
    if (call.name) {
      OpenBlock(Block::kToolUse,
                {{"type", "tool_use"},
                 {"id", CallId(call.index)},
                 {"name", *call.name},
                 {"input", Json::object()}},
                &events);
    }
    if (!call.arguments.empty()) {
      Delta({{"type", "input_json_delta"}, {"partial_json", call.arguments}},
            &events);
    }
  }
  if (update.finish_reason.empty()) return events;
  CloseBlock(&events);
  events +=
      Event("message_delta",
            {{"delta", StopFields(update.finish_reason, update.stop_reason)},
             {"usage", UsageObject(update.usage)}});
  return events;
}

std::string AnthropicFormat::End(const Usage&) {
  return Event("message_stop", Json::object());
}

std::string AnthropicFormat::StreamedError(const ApiError& error) {
  return absl::StrCat("event: error\ndata: ", DumpJson(ErrorObject(error)),
                      "\n\n");
}

std::string AnthropicFormat::KeepAlive() const {
  return Event("ping", Json::object());
}

HttpResponse AnthropicFormat::Whole(absl::Span<const ChoiceResult> choices,
                                    const Usage&) {
  const ChoiceResult& choice = choices[0];
  Json message = Message();
  Json& content = message["content"];
  if (!choice.message.reasoning.empty()) {
    content.push_back({{"type", "thinking"},
                       {"thinking", choice.message.reasoning},
                       {"signature", id_}});
  }
  if (!choice.message.content.empty()) {
    content.push_back({{"type", "text"}, {"text", choice.message.content}});
  }
  for (size_t i = 0; i < choice.message.tool_calls.size(); ++i) {
    const ToolCall& call = choice.message.tool_calls[i];
    // An object must be there, also if it was cut off (stop_reason tells): its
    // members as far as they came.
    absl::StatusOr<Json> input = ParseJson(CloseJson(call.arguments));
    content.push_back(
        {{"type", "tool_use"},
         {"id", CallId(static_cast<int>(i))},
         {"name", call.name},
         {"input", input.ok() ? *std::move(input) : Json(Json::object())}});
  }
  const Json stop = StopFields(choice.finish_reason, choice.stop_reason);
  for (const auto& [key, value] : stop.items()) message[key] = value;
  message["usage"] = UsageObject(choice.usage);
  return JsonResponse(200, message);
}

}  // namespace switchyard::router
