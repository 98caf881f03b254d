#include "router/responses/responses_request.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"
#include "router/openai/field_reader.h"

namespace switchyard::router {
namespace {

// Fields of this API that are translated here, or that change nothing.
constexpr const char* kTranslated[] = {"input",
                                       "instructions",
                                       "previous_response_id",
                                       "store",
                                       "background",
                                       "tools",
                                       "tool_choice",
                                       "max_output_tokens",
                                       "reasoning",
                                       "text",
                                       "truncation",
                                       "include",
                                       "max_tool_calls",
                                       "top_logprobs",
                                       "stream_options",
                                       "conversation",
                                       "prompt",
                                       "moderation"};

// Joins the items of one turn of the assistant into one message of a chat.
class ChatBuilder {
 public:
  absl::Status Add(const Json& item, const std::string& path);
  Json Take() {
    Flush();
    return std::move(messages_);
  }
  void AddSystem(const Json& text) {
    messages_.push_back({{"role", "system"}, {"content", text}});
  }

 private:
  absl::Status AddMessage(const Json& item, const std::string& path);
  absl::Status AddCall(const Json& item, const std::string& path);
  absl::Status AddOutput(const Json& item, const std::string& path);
  void AddReasoning(const Json& item);
  Json& Assistant() {
    if (assistant_.is_null()) assistant_ = {{"role", "assistant"}};
    return assistant_;
  }
  void Flush() {
    if (!assistant_.is_null()) messages_.push_back(std::move(assistant_));
    assistant_ = nullptr;
  }

  Json messages_ = Json::array();
  Json assistant_;  // not complete yet; null: none
};

absl::Status ChatBuilder::Add(const Json& item, const std::string& path) {
  if (!item.is_object()) return ParamError(path, "must be an object");
  std::string type = item.contains("role") ? "message" : "";
  if (const auto it = item.find("type"); it != item.end() && !it->is_null()) {
    if (!it->is_string()) return ParamError(path + ".type", "must be a string");
    type = it->get<std::string>();
  }
  if (type == "message") return AddMessage(item, path);
  if (type == "function_call") return AddCall(item, path);
  if (type == "function_call_output") return AddOutput(item, path);
  if (type == "reasoning") {
    AddReasoning(item);
    return absl::OkStatus();
  }
  return ParamError(path + ".type",
                    absl::StrCat("is '", type.substr(0, 64),
                                 "'; served are message, reasoning, "
                                 "function_call and function_call_output"));
}

absl::Status ChatBuilder::AddMessage(const Json& item,
                                     const std::string& path) {
  const auto role = item.find("role");
  if (role == item.end() || !role->is_string()) {
    return ParamError(path + ".role", "must be a string");
  }
  const auto content = item.find("content");
  if (content == item.end()) {
    return ParamError(path + ".content", "is missing");
  }
  if (*role != "assistant") {
    Flush();
    messages_.push_back({{"role", *role}, {"content", *content}});
    return absl::OkStatus();
  }
  if (assistant_.contains("content") || assistant_.contains("tool_calls")) {
    Flush();
  }
  Assistant()["content"] = *content;
  return absl::OkStatus();
}

absl::Status ChatBuilder::AddCall(const Json& item, const std::string& path) {
  const auto name = item.find("name");
  if (name == item.end() || !name->is_string()) {
    return ParamError(path + ".name", "must be a string");
  }
  Json& calls = Assistant()["tool_calls"];
  if (calls.is_null()) calls = Json::array();
  calls.push_back({{"id", item.value("call_id", Json(""))},
                   {"type", "function"},
                   {"function",
                    {{"name", *name},
                     {"arguments", item.value("arguments", Json("{}"))}}}});
  return absl::OkStatus();
}

absl::Status ChatBuilder::AddOutput(const Json& item, const std::string& path) {
  Flush();
  const auto output = item.find("output");
  if (output == item.end()) return ParamError(path + ".output", "is missing");
  messages_.push_back({{"role", "tool"},
                       {"tool_call_id", item.value("call_id", Json(""))},
                       {"content", *output}});
  return absl::OkStatus();
}

void ChatBuilder::AddReasoning(const Json& item) {
  std::string text;
  for (const char* list : {"content", "summary"}) {
    const auto parts = item.find(list);
    if (!text.empty() || parts == item.end() || !parts->is_array()) continue;
    for (const Json& part : *parts) {
      if (!part.is_object()) continue;
      const auto it = part.find("text");
      if (it != part.end() && it->is_string()) text += it->get<std::string>();
    }
  }
  if (text.empty()) return;  // encrypted by somebody else
  if (assistant_.contains("content") || assistant_.contains("tool_calls")) {
    Flush();
  }
  Assistant()["reasoning_content"] = std::move(text);
}

absl::StatusOr<Json> InputItems(const Json& body) {
  const auto input = body.find("input");
  if (input == body.end() || input->is_null()) {
    return ParamError("input", "is missing");
  }
  if (input->is_string()) {
    return Json::array(
        {{{"type", "message"}, {"role", "user"}, {"content", *input}}});
  }
  if (!input->is_array()) {
    return ParamError("input", "must be a string or an array of items");
  }
  return *input;
}

absl::StatusOr<Json> Tools(const Json& tools) {
  if (!tools.is_array()) return ParamError("tools", "must be an array");
  Json out = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    const Json& tool = tools[i];
    const std::string path = absl::StrCat("tools[", i, "]");
    if (!tool.is_object()) return ParamError(path, "must be an object");
    if (tool.value("type", Json()) != "function") {
      return ParamError(path + ".type",
                        "must be 'function'; this server runs no tools of its "
                        "own");
    }
    Json function = Json::object();
    for (const char* name : {"name", "description", "parameters", "strict"}) {
      const auto it = tool.find(name);
      if (it != tool.end() && !it->is_null()) function[name] = *it;
    }
    out.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return out;
}

absl::StatusOr<Json> ToolChoice(const Json& choice) {
  if (choice.is_string()) return choice;
  if (!choice.is_object() || choice.value("type", Json()) != "function" ||
      !choice.contains("name")) {
    return ParamError("tool_choice",
                      "must be none, auto, required or a function's name as "
                      "{\"type\": \"function\", \"name\": ...}");
  }
  return Json({{"type", "function"}, {"function", {{"name", choice["name"]}}}});
}

absl::Status AddTextFormat(const Json& body, Json* chat) {
  const auto text = body.find("text");
  if (text == body.end() || text->is_null()) return absl::OkStatus();
  if (!text->is_object()) return ParamError("text", "must be an object");
  const auto format = text->find("format");
  if (format == text->end() || format->is_null()) return absl::OkStatus();
  if (!format->is_object()) {
    return ParamError("text.format", "must be an object");
  }
  if (format->value("type", Json()) != "json_schema") {
    (*chat)["response_format"] = *format;
    return absl::OkStatus();
  }
  Json schema = *format;
  schema.erase("type");
  (*chat)["response_format"] = {{"type", "json_schema"},
                                {"json_schema", std::move(schema)}};
  return absl::OkStatus();
}

absl::Status AddReasoning(const Json& body, Json* chat) {
  const auto reasoning = body.find("reasoning");
  if (reasoning == body.end() || reasoning->is_null()) return absl::OkStatus();
  if (!reasoning->is_object()) {
    return ParamError("reasoning", "must be an object");
  }
  FieldReader reader(*reasoning, "reasoning.");
  if (const auto effort = reader.String("effort")) {
    (*chat)["reasoning_effort"] = *effort;
  }
  return reader.status();
}

absl::Status RefuseUnserved(FieldReader* reader) {
  for (const char* name : {"conversation", "prompt"}) {
    if (reader->Find(name) != nullptr) {
      return ParamError(name, "is not supported by this server");
    }
  }
  if (reader->Int("top_logprobs", 0, INT32_MAX).value_or(0) > 0) {
    return ParamError("top_logprobs",
                      "is not supported here; /v1/chat/completions has "
                      "logprobs");
  }
  return reader->status();
}

// A field as the client sent it, or what the API says instead.
Json Given(const Json& body, const char* name, Json otherwise) {
  const auto it = body.find(name);
  return it == body.end() || it->is_null() ? std::move(otherwise) : *it;
}

Json Echo(const Json& body) {
  return {
      {"instructions", Given(body, "instructions", nullptr)},
      {"max_output_tokens", Given(body, "max_output_tokens", nullptr)},
      {"max_tool_calls", Given(body, "max_tool_calls", nullptr)},
      {"metadata", Given(body, "metadata", Json::object())},
      {"parallel_tool_calls", Given(body, "parallel_tool_calls", true)},
      {"previous_response_id", Given(body, "previous_response_id", nullptr)},
      {"reasoning",
       Given(body, "reasoning", {{"effort", nullptr}, {"summary", nullptr}})},
      {"service_tier", "default"},
      {"store", Given(body, "store", true)},
      {"temperature", Given(body, "temperature", 1.0)},
      {"text", Given(body, "text", {{"format", {{"type", "text"}}}})},
      {"tool_choice", Given(body, "tool_choice", "auto")},
      {"tools", Given(body, "tools", Json::array())},
      {"top_logprobs", 0},
      {"top_p", Given(body, "top_p", 1.0)},
      {"truncation", Given(body, "truncation", "disabled")},
      {"user", Given(body, "user", nullptr)}};
}

}  // namespace

absl::StatusOr<std::string> PreviousResponseId(const Json& body) {
  FieldReader reader(body);
  std::string id = reader.String("previous_response_id").value_or("");
  SY_RETURN_IF_ERROR(reader.status());
  return id;
}

absl::StatusOr<ResponsesRequest> ParseResponsesRequest(const Json& body,
                                                       const Json& earlier) {
  ResponsesRequest request;
  FieldReader reader(body);
  SY_RETURN_IF_ERROR(RefuseUnserved(&reader));
  request.store = reader.Bool("store").value_or(true);
  request.background = reader.Bool("background").value_or(false);
  SY_ASSIGN_OR_RETURN(request.input, InputItems(body));
  Json& chat = request.chat;
  chat = Json::object();
  for (const auto& [key, value] : body.items()) {
    bool translated = false;
    for (const char* name : kTranslated) translated |= key == name;
    if (!translated) chat[key] = value;
  }
  ChatBuilder builder;
  if (const auto instructions = reader.String("instructions")) {
    builder.AddSystem(*instructions);
  }
  request.history = earlier;
  for (size_t i = 0; i < earlier.size(); ++i) {
    SY_RETURN_IF_ERROR(builder.Add(
        earlier[i], absl::StrCat("previous_response_id.items[", i, "]")));
  }
  for (size_t i = 0; i < request.input.size(); ++i) {
    SY_RETURN_IF_ERROR(
        builder.Add(request.input[i], absl::StrCat("input[", i, "]")));
    request.history.push_back(request.input[i]);
  }
  chat["messages"] = builder.Take();
  if (const auto most = reader.Int("max_output_tokens", 1, INT32_MAX)) {
    chat["max_completion_tokens"] = *most;
  }
  SY_RETURN_IF_ERROR(reader.status());
  if (const Json* tools = reader.Find("tools")) {
    SY_ASSIGN_OR_RETURN(chat["tools"], Tools(*tools));
  }
  if (const Json* choice = reader.Find("tool_choice")) {
    SY_ASSIGN_OR_RETURN(chat["tool_choice"], ToolChoice(*choice));
  }
  SY_RETURN_IF_ERROR(AddReasoning(body, &chat));
  SY_RETURN_IF_ERROR(AddTextFormat(body, &chat));
  if (const auto cut = reader.String("truncation"); cut && *cut == "auto") {
    chat["truncate_prompt_tokens"] = -1;
  }
  SY_RETURN_IF_ERROR(reader.status());
  request.echo = Echo(body);
  return request;
}

}  // namespace switchyard::router
