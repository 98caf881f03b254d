#include "router/openai/chat_messages.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"
#include "router/openai/field_reader.h"

namespace switchyard::router {
namespace {

absl::StatusOr<std::string> NormaliseRole(const Json& message,
                                          const std::string& path) {
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) {
    return ParamError(path + ".role", "must be a string");
  }
  const std::string name = role->get<std::string>();
  if (name == "developer") return std::string("system");
  if (name == "function") return std::string("tool");
  if (name == "system" || name == "user" || name == "assistant" ||
      name == "tool") {
    return name;
  }
  return ParamError(path + ".role",
                    absl::StrCat("is '", name.substr(0, 64),
                                 "'; known are system, developer, user, "
                                 "assistant and tool"));
}

absl::StatusOr<std::string> PartText(const Json& part,
                                     const std::string& path) {
  if (part.is_string()) return part.get<std::string>();
  if (!part.is_object()) {
    return ParamError(path, absl::StrCat("must be an object, not ",
                                         std::string(JsonTypeName(part))));
  }
  const auto type = part.find("type");
  if (type == part.end() || !type->is_string()) {
    return ParamError(path + ".type", "must be a string");
  }
  const std::string name = type->get<std::string>();
  const char* key = name == "refusal" ? "refusal" : "text";
  if (name != "text" && name != "input_text" && name != "output_text" &&
      name != "refusal") {
    return ParamError(path + ".type",
                      absl::StrCat("is '", name.substr(0, 64),
                                   "'; this model takes text only"));
  }
  const auto text = part.find(key);
  if (text == part.end() || !text->is_string()) {
    return ParamError(absl::StrCat(path, ".", key), "must be a string");
  }
  return text->get<std::string>();
}

absl::StatusOr<std::string> NormaliseContent(const Json& message,
                                             const std::string& path) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) return std::string();
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) {
    return ParamError(
        path + ".content",
        absl::StrCat("must be a string or an array of parts, not ",
                     std::string(JsonTypeName(*content))));
  }
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    SY_ASSIGN_OR_RETURN(
        const std::string part,
        PartText((*content)[i], absl::StrCat(path, ".content[", i, "]")));
    if (i > 0) text += '\n';
    text += part;
  }
  return text;
}

absl::Status NormaliseToolCall(const std::string& path, Json* call) {
  if (!call->is_object()) return ParamError(path, "must be an object");
  const auto function = call->find("function");
  if (function == call->end() || !function->is_object()) {
    return ParamError(path + ".function", "must be an object");
  }
  const auto name = function->find("name");
  if (name == function->end() || !name->is_string()) {
    return ParamError(path + ".function.name", "must be a string");
  }
  const auto arguments = function->find("arguments");
  if (arguments == function->end() || arguments->is_null()) {
    (*function)["arguments"] = Json::object();
    return absl::OkStatus();
  }
  if (arguments->is_object()) return absl::OkStatus();
  if (!arguments->is_string()) {
    return ParamError(path + ".function.arguments",
                      "must be JSON text or an object");
  }
  // Text that is no object (a call that was cut off, say) is kept: a history
  // with it must remain usable.
  absl::StatusOr<Json> parsed =
      ParseJson(arguments->get_ref<const std::string&>());
  if (parsed.ok() && parsed->is_object()) *arguments = *std::move(parsed);
  return absl::OkStatus();
}

absl::Status NormaliseToolCalls(const std::string& path, Json* message) {
  const auto calls = message->find("tool_calls");
  if (calls == message->end()) return absl::OkStatus();
  if (!calls->is_array()) {
    return ParamError(path + ".tool_calls", "must be an array");
  }
  if (calls->empty()) {
    message->erase(calls);
    return absl::OkStatus();
  }
  for (size_t i = 0; i < calls->size(); ++i) {
    SY_RETURN_IF_ERROR(NormaliseToolCall(
        absl::StrCat(path, ".tool_calls[", i, "]"), &(*calls)[i]));
  }
  return absl::OkStatus();
}

absl::Status NormaliseReasoning(const std::string& path, Json* message) {
  for (const char* key : {"reasoning_content", "reasoning"}) {
    const auto value = message->find(key);
    if (value == message->end()) continue;
    if (!value->is_string()) {
      return ParamError(absl::StrCat(path, ".", key), "must be a string");
    }
  }
  if (!message->contains("reasoning_content") &&
      message->contains("reasoning")) {
    (*message)["reasoning_content"] = (*message)["reasoning"];
  }
  return absl::OkStatus();
}

// A coding agent's system prompt begins with a line of its own, of which the
// end changes with every request: "x-anthropic-billing-header: ...;
// cch=1a2b3;". No prefix of two prompts would be the same, and the model has no
// use for it.
void SteadyBillingHeader(std::string* text) {
  const size_t line = text->find("x-anthropic-billing-header:");
  if (line == std::string::npos) return;
  const size_t end = std::min(text->find('\n', line), text->size());
  const size_t value = text->find("cch=", line);
  if (value >= end) return;
  const size_t stop = std::min(text->find(';', value), end);
  text->replace(value, stop - value, "cch=0");
}

absl::StatusOr<Json> NormaliseMessage(const Json& message,
                                      const std::string& path) {
  if (!message.is_object()) {
    return ParamError(path, absl::StrCat("must be an object, not ",
                                         std::string(JsonTypeName(message))));
  }
  SY_ASSIGN_OR_RETURN(std::string role, NormaliseRole(message, path));
  SY_ASSIGN_OR_RETURN(std::string content, NormaliseContent(message, path));
  if (role == "system") SteadyBillingHeader(&content);
  Json normal = Json::object();
  normal["role"] = std::move(role);
  normal["content"] = std::move(content);
  for (const auto& [key, value] : message.items()) {
    if (value.is_null() || key == "role" || key == "content") continue;
    normal[key] = value;
  }
  SY_RETURN_IF_ERROR(NormaliseToolCalls(path, &normal));
  SY_RETURN_IF_ERROR(NormaliseReasoning(path, &normal));
  return normal;
}

}  // namespace

absl::StatusOr<Json> NormaliseMessages(const Json& messages) {
  if (!messages.is_array()) {
    return ParamError("messages",
                      absl::StrCat("must be an array, not ",
                                   std::string(JsonTypeName(messages))));
  }
  if (messages.empty()) {
    return ParamError("messages", "must have at least one message");
  }
  Json normal = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    SY_ASSIGN_OR_RETURN(
        Json message,
        NormaliseMessage(messages[i], absl::StrCat("messages[", i, "]")));
    normal.push_back(std::move(message));
  }
  return normal;
}

absl::StatusOr<Json> NormaliseTools(const Json& tools) {
  if (tools.is_null()) return Json(nullptr);
  if (!tools.is_array()) {
    return ParamError("tools", absl::StrCat("must be an array, not ",
                                            std::string(JsonTypeName(tools))));
  }
  if (tools.empty()) return Json(nullptr);
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string path = absl::StrCat("tools[", i, "]");
    const Json& tool = tools[i];
    if (!tool.is_object()) return ParamError(path, "must be an object");
    const auto type = tool.find("type");
    if (type == tool.end() || *type != "function") {
      return ParamError(path + ".type", "must be 'function'");
    }
    const auto function = tool.find("function");
    if (function == tool.end() || !function->is_object()) {
      return ParamError(path + ".function", "must be an object");
    }
    const auto name = function->find("name");
    if (name == function->end() || !name->is_string()) {
      return ParamError(path + ".function.name", "must be a string");
    }
  }
  return tools;
}

}  // namespace switchyard::router
