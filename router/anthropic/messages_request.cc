#include "router/anthropic/messages_request.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"
#include "router/openai/field_reader.h"

namespace switchyard::router {
namespace {

constexpr size_t kMaxUserBytes = 512;  // of OpenAI's `user`

// Fields of this API that are translated here, or that change nothing.
constexpr const char* kTranslated[] = {"messages",
                                       "system",
                                       "max_tokens",
                                       "stop_sequences",
                                       "thinking",
                                       "tools",
                                       "tool_choice",
                                       "metadata",
                                       "service_tier",
                                       "container",
                                       "context_management",
                                       "mcp_servers",
                                       "output_config",
                                       "output_format",
                                       "betas",
                                       "cache_control"};

absl::StatusOr<std::string> StringField(const Json& object, const char* name,
                                        const std::string& path) {
  const auto it = object.find(name);
  if (it == object.end() || !it->is_string()) {
    return ParamError(absl::StrCat(path, ".", name), "must be a string");
  }
  return it->get<std::string>();
}

absl::StatusOr<std::string> BlockType(const Json& block,
                                      const std::string& path) {
  if (!block.is_object()) return ParamError(path, "must be an object");
  return StringField(block, "type", path);
}

absl::Status RefuseBlock(const std::string& path, const std::string& type) {
  return ParamError(path + ".type",
                    absl::StrCat("is '", type.substr(0, 64),
                                 "', which this server does not serve: this "
                                 "model takes text only"));
}

// A string, or blocks of text -> OpenAI's parts.
absl::StatusOr<Json> TextParts(const Json& content, const std::string& path) {
  if (content.is_string()) return content;
  if (!content.is_array()) {
    return ParamError(path, "must be a string or an array of blocks");
  }
  Json parts = Json::array();
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string at = absl::StrCat(path, "[", i, "]");
    SY_ASSIGN_OR_RETURN(const std::string type, BlockType(content[i], at));
    if (type != "text") return RefuseBlock(at, type);
    SY_ASSIGN_OR_RETURN(std::string text, StringField(content[i], "text", at));
    parts.push_back({{"type", "text"}, {"text", std::move(text)}});
  }
  return parts;
}

absl::Status AddToolResult(const Json& block, const std::string& path,
                           Json* messages) {
  SY_ASSIGN_OR_RETURN(std::string id, StringField(block, "tool_use_id", path));
  Json content = "";
  if (const auto it = block.find("content");
      it != block.end() && !it->is_null()) {
    SY_ASSIGN_OR_RETURN(content, TextParts(*it, path + ".content"));
  }
  messages->push_back({{"role", "tool"},
                       {"tool_call_id", std::move(id)},
                       {"content", std::move(content)}});
  return absl::OkStatus();
}

absl::Status AddUser(const Json& content, const std::string& path,
                     Json* messages) {
  if (content.is_string()) {
    messages->push_back({{"role", "user"}, {"content", content}});
    return absl::OkStatus();
  }
  Json parts = Json::array();
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string at = absl::StrCat(path, "[", i, "]");
    SY_ASSIGN_OR_RETURN(const std::string type, BlockType(content[i], at));
    if (type == "tool_result") {
      SY_RETURN_IF_ERROR(AddToolResult(content[i], at, messages));
    } else if (type == "text") {
      SY_ASSIGN_OR_RETURN(std::string text,
                          StringField(content[i], "text", at));
      parts.push_back({{"type", "text"}, {"text", std::move(text)}});
    } else {
      return RefuseBlock(at, type);
    }
  }
  if (!parts.empty() || content.empty()) {
    messages->push_back({{"role", "user"}, {"content", std::move(parts)}});
  }
  return absl::OkStatus();
}

absl::Status AddAssistant(const Json& content, const std::string& path,
                          Json* messages) {
  Json message = {{"role", "assistant"}};
  if (content.is_string()) {
    message["content"] = content;
    messages->push_back(std::move(message));
    return absl::OkStatus();
  }
  Json parts = Json::array(), calls = Json::array();
  std::string reasoning;
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& block = content[i];
    const std::string at = absl::StrCat(path, "[", i, "]");
    SY_ASSIGN_OR_RETURN(const std::string type, BlockType(block, at));
    if (type == "text") {
      SY_ASSIGN_OR_RETURN(std::string text, StringField(block, "text", at));
      parts.push_back({{"type", "text"}, {"text", std::move(text)}});
    } else if (type == "thinking") {
      SY_ASSIGN_OR_RETURN(const std::string text,
                          StringField(block, "thinking", at));
      reasoning += text;
    } else if (type == "tool_use") {
      SY_ASSIGN_OR_RETURN(std::string id, StringField(block, "id", at));
      SY_ASSIGN_OR_RETURN(std::string name, StringField(block, "name", at));
      Json input = block.value("input", Json::object());
      if (!input.is_object()) {
        return ParamError(at + ".input", "must be an object");
      }
      calls.push_back(
          {{"id", std::move(id)},
           {"type", "function"},
           {"function",
            {{"name", std::move(name)}, {"arguments", std::move(input)}}}});
    } else if (type != "redacted_thinking") {  // of another model
      return RefuseBlock(at, type);
    }
  }
  message["content"] = std::move(parts);
  if (!reasoning.empty()) message["reasoning_content"] = std::move(reasoning);
  if (!calls.empty()) message["tool_calls"] = std::move(calls);
  messages->push_back(std::move(message));
  return absl::OkStatus();
}

absl::StatusOr<Json> Messages(const Json& body) {
  Json messages = Json::array();
  if (const auto system = body.find("system");
      system != body.end() && !system->is_null()) {
    SY_ASSIGN_OR_RETURN(Json parts, TextParts(*system, "system"));
    if (!parts.empty()) {
      messages.push_back({{"role", "system"}, {"content", std::move(parts)}});
    }
  }
  const auto list = body.find("messages");
  if (list == body.end() || !list->is_array() || list->empty()) {
    return ParamError("messages", "must be an array of at least one message");
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& message = (*list)[i];
    const std::string path = absl::StrCat("messages[", i, "]");
    if (!message.is_object()) return ParamError(path, "must be an object");
    SY_ASSIGN_OR_RETURN(const std::string role,
                        StringField(message, "role", path));
    const auto content = message.find("content");
    if (content == message.end() ||
        !(content->is_string() || content->is_array())) {
      return ParamError(path + ".content",
                        "must be a string or an array of blocks");
    }
    if (role == "user") {
      SY_RETURN_IF_ERROR(AddUser(*content, path + ".content", &messages));
    } else if (role == "assistant") {
      SY_RETURN_IF_ERROR(AddAssistant(*content, path + ".content", &messages));
    } else if (role == "system") {  // newer clients put some in between
      SY_ASSIGN_OR_RETURN(Json parts, TextParts(*content, path + ".content"));
      messages.push_back({{"role", "system"}, {"content", std::move(parts)}});
    } else {
      return ParamError(path + ".role", "must be user or assistant");
    }
  }
  return messages;
}

absl::StatusOr<Json> Tools(const Json& tools) {
  if (!tools.is_array()) return ParamError("tools", "must be an array");
  Json out = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    const Json& tool = tools[i];
    const std::string path = absl::StrCat("tools[", i, "]");
    if (!tool.is_object()) return ParamError(path, "must be an object");
    const auto type = tool.find("type");
    if (type != tool.end() && !type->is_null() && *type != "custom") {
      return ParamError(path + ".type",
                        "only 'custom' tools are served; this server runs no "
                        "tools of its own");
    }
    SY_ASSIGN_OR_RETURN(std::string name, StringField(tool, "name", path));
    Json function = {{"name", std::move(name)}};
    if (const auto text = tool.find("description");
        text != tool.end() && text->is_string()) {
      function["description"] = *text;
    }
    const auto schema = tool.find("input_schema");
    if (schema == tool.end() || !schema->is_object()) {
      return ParamError(path + ".input_schema", "must be an object");
    }
    function["parameters"] = *schema;
    if (const auto strict = tool.find("strict");
        strict != tool.end() && strict->is_boolean()) {
      function["strict"] = *strict;
    }
    out.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return out;
}

absl::Status AddToolChoice(const Json& choice, Json* chat) {
  if (!choice.is_object()) {
    return ParamError("tool_choice", "must be an object");
  }
  SY_ASSIGN_OR_RETURN(const std::string type,
                      StringField(choice, "type", "tool_choice"));
  if (type == "auto" || type == "none") {
    (*chat)["tool_choice"] = type;
  } else if (type == "any") {
    (*chat)["tool_choice"] = "required";
  } else if (type == "tool") {
    SY_ASSIGN_OR_RETURN(std::string name,
                        StringField(choice, "name", "tool_choice"));
    (*chat)["tool_choice"] = {{"type", "function"},
                              {"function", {{"name", std::move(name)}}}};
  } else {
    return ParamError("tool_choice.type", "must be auto, any, tool or none");
  }
  if (choice.value("disable_parallel_tool_use", Json(false)) == true) {
    (*chat)["parallel_tool_calls"] = false;
  }
  return absl::OkStatus();
}

absl::Status AddThinking(const Json& body, Json* chat) {
  const auto thinking = body.find("thinking");
  if (thinking == body.end() || thinking->is_null()) {
    if (!chat->contains("enable_thinking") &&
        !chat->contains("chat_template_kwargs")) {
      (*chat)["enable_thinking"] = false;
    }
    return absl::OkStatus();
  }
  if (!thinking->is_object()) {
    return ParamError("thinking", "must be an object");
  }
  SY_ASSIGN_OR_RETURN(const std::string type,
                      StringField(*thinking, "type", "thinking"));
  if (type != "enabled" && type != "disabled" && type != "adaptive") {
    return ParamError("thinking.type", "must be enabled, disabled or adaptive");
  }
  (*chat)["enable_thinking"] = type != "disabled";
  FieldReader reader(*thinking, "thinking.");
  if (const auto budget = reader.Int("budget_tokens", 1, INT32_MAX);
      budget && type == "enabled") {
    (*chat)["thinking_budget"] = *budget;
  }
  return reader.status();
}

absl::Status AddOutputFormat(const Json& body, Json* chat) {
  Json format = body.value("output_format", Json(nullptr));
  if (const auto config = body.find("output_config");
      format.is_null() && config != body.end() && config->is_object()) {
    format = config->value("format", Json(nullptr));
  }
  if (format.is_null()) return absl::OkStatus();
  if (!format.is_object() || format.value("type", Json()) != "json_schema" ||
      !format.contains("schema")) {
    return ParamError("output_config.format",
                      "must be {\"type\": \"json_schema\", \"schema\": ...}");
  }
  (*chat)["response_format"] = {
      {"type", "json_schema"},
      {"json_schema", {{"name", "output"}, {"schema", format["schema"]}}}};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> ChatFromMessages(const Json& body, bool counting) {
  Json chat = Json::object();
  for (const auto& [key, value] : body.items()) {
    bool translated = false;
    for (const char* name : kTranslated) translated |= key == name;
    if (!translated) chat[key] = value;
  }
  SY_ASSIGN_OR_RETURN(chat["messages"], Messages(body));
  FieldReader reader(body);
  const auto max_tokens = reader.Int("max_tokens", 1, INT32_MAX);
  if (!max_tokens && !counting) reader.Fail("max_tokens", "is missing");
  if (max_tokens) chat["max_tokens"] = *max_tokens;
  if (const Json* stop = reader.Find("stop_sequences")) {
    if (!stop->is_array()) reader.Fail("stop_sequences", "must be an array");
    chat["stop"] = *stop;
  }
  SY_RETURN_IF_ERROR(reader.status());
  if (const Json* tools = reader.Find("tools")) {
    SY_ASSIGN_OR_RETURN(chat["tools"], Tools(*tools));
  }
  if (const Json* choice = reader.Find("tool_choice")) {
    SY_RETURN_IF_ERROR(AddToolChoice(*choice, &chat));
  }
  SY_RETURN_IF_ERROR(AddThinking(body, &chat));
  SY_RETURN_IF_ERROR(AddOutputFormat(body, &chat));
  if (const Json* metadata = reader.Find("metadata");
      metadata != nullptr && metadata->is_object()) {
    FieldReader inner(*metadata, "metadata.");
    // For fairness only, so a name that is too long is none.
    const std::string user = inner.String("user_id").value_or("");
    if (!user.empty() && user.size() <= kMaxUserBytes) chat["user"] = user;
  }
  return chat;
}

}  // namespace switchyard::router
