#include <initializer_list>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/text/chat_render.h"
#include "router/text/python_text.h"

namespace switchyard::router {
namespace {

constexpr absl::string_view kDefaultSystem =
    "You are Qwen, a helpful AI assistant that can interact with a computer to "
    "solve tasks.";
constexpr absl::string_view kToolsHead =
    "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>";
constexpr absl::string_view kToolsTail =
    "\n</tools>\n\nIf you choose to call a function ONLY reply in the "
    "following "
    "format with NO suffix:\n\n<tool_call>\n<function=example_function_name>\n"
    "<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nThis is the value for the second "
    "parameter\nthat can span\nmultiple lines\n</parameter>\n</function>\n"
    "</tool_call>\n\n<IMPORTANT>\nReminder:\n- Function calls MUST follow the "
    "specified format: an inner <function=...></function> block must be nested "
    "within <tool_call></tool_call> XML tags\n- Required parameters MUST be "
    "specified\n- You may provide optional reasoning for your function call in "
    "natural language BEFORE the function call, but NOT after\n- If there is "
    "no "
    "function call available, answer the question like normal with your "
    "current "
    "knowledge and do not tell the user about function calls\n</IMPORTANT>";

std::string RawOrJson(const Json& value) {
  return value.is_string() ? value.get<std::string>()
                           : DumpJsonLikePython(value);
}

class CoderRenderer {
 public:
  explicit CoderRenderer(const ChatPrompt& prompt)
      : messages_(prompt.messages),
        tools_(prompt.tools),
        kwargs_(prompt.kwargs) {}

  absl::StatusOr<std::string> Render() {
    SY_RETURN_IF_ERROR(RenderHead());
    for (size_t i = first_; i < messages_.size(); ++i) {
      SY_RETURN_IF_ERROR(RenderMessage(i));
    }
    const Json* generate = FindMember(kwargs_, "add_generation_prompt");
    if (generate != nullptr && PythonTruth(*generate)) {
      absl::StrAppend(&out_, "<|im_start|>assistant\n");
    }
    return std::move(out_);
  }

 private:
  absl::Status RenderHead() {
    const bool has_tools = tools_.is_array() && !tools_.empty();
    const Json* role = FindMember(messages_[0], "role");
    const bool has_system = role != nullptr && *role == "system" &&
                            FindMember(messages_[0], "content") != nullptr;
    if (role != nullptr && *role == "system") first_ = 1;
    if (has_system) {
      SY_ASSIGN_OR_RETURN(const std::string system,
                          RequiredText(messages_, 0, "content"));
      absl::StrAppend(&out_, "<|im_start|>system\n", system);
    } else if (has_tools) {
      absl::StrAppend(&out_, "<|im_start|>system\n", kDefaultSystem);
    }
    if (has_tools) {
      absl::StrAppend(&out_, kToolsHead);
      for (size_t i = 0; i < tools_.size(); ++i) {
        if (!tools_[i].is_object()) {
          return absl::InvalidArgumentError(
              absl::StrCat("tools[", i, "] is not an object"));
        }
        const Json* function = FindMember(tools_[i], "function");
        RenderTool(function != nullptr ? *function : tools_[i]);
      }
      absl::StrAppend(&out_, kToolsTail);
    }
    if (has_system || has_tools) absl::StrAppend(&out_, "<|im_end|>\n");
    return absl::OkStatus();
  }

  void RenderTool(const Json& tool) {
    const Json* name = FindMember(tool, "name");
    absl::StrAppend(&out_, "\n<function>\n<name>",
                    name == nullptr ? "" : PythonStr(*name), "</name>");
    RenderDescription(tool);
    absl::StrAppend(&out_, "\n<parameters>");
    const Json* parameters = FindMember(tool, "parameters");
    if (parameters != nullptr) {
      const Json* properties = FindMember(*parameters, "properties");
      if (properties != nullptr && properties->is_object()) {
        for (const auto& [key, fields] : properties->items()) {
          RenderParameter(key, fields);
        }
      }
      RenderOtherKeys(*parameters, {"type", "properties"});
    }
    absl::StrAppend(&out_, "\n</parameters>");
    RenderOtherKeys(tool, {"type", "name", "description", "parameters"});
    absl::StrAppend(&out_, "\n</function>");
  }

  void RenderParameter(const std::string& name, const Json& fields) {
    absl::StrAppend(&out_, "\n<parameter>\n<name>", name, "</name>");
    if (const Json* type = FindMember(fields, "type"); type != nullptr) {
      absl::StrAppend(&out_, "\n<type>", PythonStr(*type), "</type>");
    }
    RenderDescription(fields);
    RenderOtherKeys(fields, {"name", "type", "description"});
    absl::StrAppend(&out_, "\n</parameter>");
  }

  void RenderDescription(const Json& object) {
    const Json* description = FindMember(object, "description");
    if (description == nullptr) return;
    const std::string text = PythonStr(*description);
    absl::StrAppend(&out_, "\n<description>", PythonStrip(text),
                    "</description>");
  }

  void RenderOtherKeys(const Json& object,
                       std::initializer_list<absl::string_view> handled) {
    if (!object.is_object()) return;
    for (const auto& [key, value] : object.items()) {
      if (absl::c_linear_search(handled, key)) continue;
      absl::StrAppend(&out_, "\n<", key, ">", RawOrJson(value), "</", key, ">");
    }
  }

  absl::Status RenderMessage(size_t index) {
    const Json& message = messages_[index];
    const Json* role = FindMember(message, "role");
    const Json* calls = FindMember(message, "tool_calls");
    if (role != nullptr && *role == "assistant" && calls != nullptr &&
        !calls->is_null() && !calls->empty()) {
      return RenderAssistantWithCalls(index, *calls);
    }
    if (role != nullptr && *role == "tool") {
      RenderToolResult(index);
      return absl::OkStatus();
    }
    SY_ASSIGN_OR_RETURN(const std::string role_text,
                        RequiredText(messages_, index, "role"));
    SY_ASSIGN_OR_RETURN(const std::string content,
                        RequiredText(messages_, index, "content"));
    absl::StrAppend(&out_, "<|im_start|>", role_text, "\n", content,
                    "<|im_end|>\n");
    return absl::OkStatus();
  }

  absl::Status RenderAssistantWithCalls(size_t index, const Json& calls) {
    if (!calls.is_array()) {
      return MessageError(messages_, index, "tool_calls is not a list");
    }
    absl::StrAppend(&out_, "<|im_start|>assistant");
    const Json* content = FindMember(messages_[index], "content");
    if (content != nullptr && content->is_string()) {
      const absl::string_view trimmed =
          PythonStrip(content->get_ref<const std::string&>());
      if (!trimmed.empty()) absl::StrAppend(&out_, "\n", trimmed, "\n");
    }
    for (const Json& call : calls) {
      const Json* function = FindMember(call, "function");
      SY_RETURN_IF_ERROR(
          RenderCall(index, function != nullptr ? *function : call));
    }
    absl::StrAppend(&out_, "<|im_end|>\n");
    return absl::OkStatus();
  }

  absl::Status RenderCall(size_t index, const Json& call) {
    const Json* name = FindMember(call, "name");
    if (name == nullptr || !name->is_string()) {
      return MessageError(messages_, index, "a tool call has no name");
    }
    absl::StrAppend(&out_, "\n<tool_call>\n<function=",
                    name->get_ref<const std::string&>(), ">\n");
    const Json* arguments = FindMember(call, "arguments");
    if (arguments != nullptr) {
      if (!arguments->is_object()) {
        return MessageError(messages_, index,
                            "the arguments of a tool call are not an object; "
                            "parse their JSON text first");
      }
      for (const auto& [key, value] : arguments->items()) {
        absl::StrAppend(&out_, "<parameter=", key, ">\n", RawOrJson(value),
                        "\n</parameter>\n");
      }
    }
    absl::StrAppend(&out_, "</function>\n</tool_call>");
    return absl::OkStatus();
  }

  bool IsTool(size_t index) const {
    const Json* role = FindMember(messages_[index], "role");
    return role != nullptr && *role == "tool";
  }

  // Consecutive results share one user turn. The template forgets to open it
  // when a result comes first; the models were trained on its output, so that
  // stays.
  void RenderToolResult(size_t index) {
    if (index > first_ && !IsTool(index - 1)) {
      absl::StrAppend(&out_, "<|im_start|>user");
    }
    const Json* content = FindMember(messages_[index], "content");
    absl::StrAppend(&out_, "\n<tool_response>\n",
                    content == nullptr ? "" : PythonStr(*content),
                    "\n</tool_response>");
    if (index + 1 == messages_.size() || !IsTool(index + 1)) {
      absl::StrAppend(&out_, "<|im_end|>\n");
    }
  }

  const Json& messages_;
  const Json& tools_;
  const Json& kwargs_;
  size_t first_ = 0;  // message that is not part of the head
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> RenderCoder(const ChatPrompt& prompt) {
  return CoderRenderer(prompt).Render();
}

}  // namespace switchyard::router
