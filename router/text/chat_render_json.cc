#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/text/chat_render.h"
#include "router/text/python_text.h"

namespace switchyard::router {
namespace {

constexpr absl::string_view kToolsHead =
    "# Tools\n\nYou may call one or more functions to assist with the user "
    "query.\n\nYou are provided with function signatures within "
    "<tools></tools> XML tags:\n<tools>";
constexpr absl::string_view kToolsTail =
    "\n</tools>\n\nFor each function call, return a json object with function "
    "name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"
    "</tool_call>";
constexpr absl::string_view kThinkEnd = "</think>";

class JsonStyleRenderer {
 public:
  JsonStyleRenderer(ChatFormat format, const ChatPrompt& prompt,
                    std::string* hidden_reasoning)
      : format_(format),
        messages_(prompt.messages),
        tools_(prompt.tools),
        kwargs_(prompt.kwargs),
        hidden_reasoning_(hidden_reasoning) {
    const Json* preserve = FindMember(kwargs_, "preserve_thinking");
    preserve_thinking_ = preserve != nullptr && PythonTruth(*preserve);
  }

  absl::StatusOr<std::string> Render() {
    SY_RETURN_IF_ERROR(RenderHead());
    if (format_ == ChatFormat::kThinking || format_ == ChatFormat::kHybrid) {
      SY_RETURN_IF_ERROR(FindLastQuery());
    }
    for (size_t i = 0; i < messages_.size(); ++i) {
      SY_RETURN_IF_ERROR(RenderMessage(i));
    }
    const Json* generate = FindMember(kwargs_, "add_generation_prompt");
    if (generate != nullptr && PythonTruth(*generate)) RenderGenerationPrompt();
    return std::move(out_);
  }

 private:
  std::string Role(size_t index) const {
    const Json* role = FindMember(messages_[index], "role");
    return role != nullptr && role->is_string() ? role->get<std::string>() : "";
  }

  // The hybrid template takes text only; the others take anything else as
  // empty.
  absl::StatusOr<std::string> Content(size_t index) const {
    if (format_ == ChatFormat::kHybrid) {
      return RequiredText(messages_, index, "content");
    }
    const Json* content = FindMember(messages_[index], "content");
    return content != nullptr && content->is_string()
               ? content->get<std::string>()
               : "";
  }

  absl::Status RenderHead() {
    const bool has_system = Role(0) == "system";
    std::string system;
    if (has_system) {
      SY_ASSIGN_OR_RETURN(system, RequiredText(messages_, 0, "content"));
    }
    if (!PythonTruth(tools_)) {
      if (has_system) AppendTurn("system", system);
      return absl::OkStatus();
    }
    absl::StrAppend(&out_, "<|im_start|>system\n", system,
                    has_system ? "\n\n" : "", kToolsHead);
    for (const Json& tool : tools_) {
      absl::StrAppend(&out_, "\n", DumpJsonLikePython(tool));
    }
    absl::StrAppend(&out_, kToolsTail, "<|im_end|>\n");
    return absl::OkStatus();
  }

  // Reasoning after the last question of a user is kept; tool results, which
  // are user turns to the model, are not questions.
  absl::Status FindLastQuery() {
    last_query_ = messages_.size() - 1;
    for (size_t i = messages_.size(); i-- > 0;) {
      if (Role(i) != "user") continue;
      const Json* content = FindMember(messages_[i], "content");
      if (content == nullptr || !content->is_string()) {
        if (format_ == ChatFormat::kThinking) continue;
        return RequiredText(messages_, i, "content").status();
      }
      const std::string& text = content->get_ref<const std::string&>();
      if (absl::StartsWith(text, "<tool_response>") &&
          absl::EndsWith(text, "</tool_response>")) {
        continue;
      }
      last_query_ = i;
      return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  absl::Status RenderMessage(size_t index) {
    const std::string role = Role(index);
    if (role == "user" || (role == "system" && index > 0)) {
      SY_ASSIGN_OR_RETURN(const std::string content, Content(index));
      AppendTurn(role, content);
      return absl::OkStatus();
    }
    if (role == "assistant") return RenderAssistant(index);
    if (role == "tool") return RenderToolResult(index);
    return absl::OkStatus();
  }

  struct Answer {
    std::string reasoning;
    std::string content;
  };

  // "REASONING</think>CONTENT" into its parts, as the templates do it: the
  // first end tag ends the reasoning, the last one begins the content.
  static Answer SplitAnswer(const std::string& text) {
    const absl::string_view view = text;
    absl::string_view reasoning =
        StripTrailingNewlines(view.substr(0, view.find(kThinkEnd)));
    const size_t begin = reasoning.rfind("<think>");
    if (begin != absl::string_view::npos) {
      reasoning.remove_prefix(begin + absl::string_view("<think>").size());
    }
    return {std::string(StripLeadingNewlines(reasoning)), AfterThinking(text)};
  }
  static std::string AfterThinking(const std::string& text) {
    return std::string(StripLeadingNewlines(absl::string_view(text).substr(
        text.rfind(std::string(kThinkEnd)) + kThinkEnd.size())));
  }

  absl::StatusOr<Answer> SplitReasoning(size_t index) const {
    const Json* given = FindMember(messages_[index], "reasoning_content");
    Answer answer;
    SY_ASSIGN_OR_RETURN(answer.content, Content(index));
    if (given != nullptr && given->is_string()) {
      answer.reasoning = given->get<std::string>();
    } else if (given != nullptr && !given->is_null() &&
               format_ == ChatFormat::kHybrid) {
      return MessageError(messages_, index,
                          "reasoning_content is not text; send a string");
    } else if (absl::StrContains(answer.content, kThinkEnd)) {
      answer = SplitAnswer(answer.content);
    }
    return answer;
  }

  absl::Status RenderAssistant(size_t index) {
    absl::StrAppend(&out_, "<|im_start|>assistant\n");
    if (format_ == ChatFormat::kInstruct) {
      SY_ASSIGN_OR_RETURN(const std::string content, Content(index));
      absl::StrAppend(&out_, content);
      return FinishAssistant(index, content);
    }
    SY_ASSIGN_OR_RETURN(Answer answer, SplitReasoning(index));
    if (format_ == ChatFormat::kSwitchable &&
        absl::StrContains(answer.content, kThinkEnd)) {
      answer.content = AfterThinking(answer.content);
    }
    if (ShowsReasoning(index, answer)) {
      absl::StrAppend(&out_, "<think>\n", StripNewlines(answer.reasoning),
                      "\n</think>\n\n", StripLeadingNewlines(answer.content));
    } else {
      absl::StrAppend(hidden_reasoning_, answer.reasoning);
      absl::StrAppend(&out_, answer.content);
    }
    return FinishAssistant(index, answer.content);
  }

  bool ShowsReasoning(size_t index, const Answer& answer) const {
    if (preserve_thinking_ && !answer.reasoning.empty()) return true;
    const bool last = index + 1 == messages_.size();
    return format_ != ChatFormat::kSwitchable && index > last_query_ &&
           (last || !answer.reasoning.empty());
  }

  absl::Status FinishAssistant(size_t index, absl::string_view content) {
    SY_RETURN_IF_ERROR(RenderCalls(index, !content.empty()));
    absl::StrAppend(&out_, "<|im_end|>\n");
    return absl::OkStatus();
  }

  absl::Status RenderCalls(size_t index, bool after_content) {
    const Json* calls = FindMember(messages_[index], "tool_calls");
    if (calls == nullptr || !PythonTruth(*calls)) return absl::OkStatus();
    if (!calls->is_array()) {
      return MessageError(messages_, index, "tool_calls is not a list");
    }
    bool newline = after_content;
    for (const Json& call : *calls) {
      const Json* function = FindMember(call, "function");
      const Json& named =
          function != nullptr && PythonTruth(*function) ? *function : call;
      const Json* name = FindMember(named, "name");
      const Json* arguments = FindMember(named, "arguments");
      if (arguments == nullptr) {
        return MessageError(messages_, index,
                            "a tool call has no arguments; send {} where there "
                            "are none");
      }
      absl::StrAppend(&out_, newline ? "\n" : "", "<tool_call>\n{\"name\": \"",
                      name == nullptr ? "" : PythonStr(*name),
                      "\", \"arguments\": ",
                      arguments->is_string() ? arguments->get<std::string>()
                                             : DumpJsonLikePython(*arguments),
                      "}\n</tool_call>");
      newline = true;
    }
    return absl::OkStatus();
  }

  // Consecutive results share one user turn.
  absl::Status RenderToolResult(size_t index) {
    std::string content;
    if (format_ == ChatFormat::kHybrid) {
      const Json* value = FindMember(messages_[index], "content");
      if (value != nullptr) content = PythonStr(*value);
    } else {
      SY_ASSIGN_OR_RETURN(content, Content(index));
    }
    if (index == 0 || Role(index - 1) != "tool") {
      absl::StrAppend(&out_, "<|im_start|>user");
    }
    absl::StrAppend(&out_, "\n<tool_response>\n", content,
                    "\n</tool_response>");
    if (index + 1 == messages_.size() || Role(index + 1) != "tool") {
      absl::StrAppend(&out_, "<|im_end|>\n");
    }
    return absl::OkStatus();
  }

  void RenderGenerationPrompt() {
    absl::StrAppend(&out_, "<|im_start|>assistant\n");
    const Json* thinking = FindMember(kwargs_, "enable_thinking");
    if (PromptOpensThinking(format_, kwargs_)) {
      absl::StrAppend(&out_, "<think>\n");
    } else if (format_ == ChatFormat::kHybrid && thinking != nullptr &&
               *thinking == false) {
      absl::StrAppend(&out_, "<think>\n\n</think>\n\n");
    }
  }

  void AppendTurn(absl::string_view role, absl::string_view content) {
    absl::StrAppend(&out_, "<|im_start|>", role, "\n", content, "<|im_end|>\n");
  }

  const ChatFormat format_;
  const Json& messages_;
  const Json& tools_;
  const Json& kwargs_;
  std::string* const hidden_reasoning_;
  bool preserve_thinking_ = false;
  size_t last_query_ = 0;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> RenderJsonStyle(ChatFormat format,
                                            const ChatPrompt& prompt,
                                            std::string* hidden_reasoning) {
  return JsonStyleRenderer(format, prompt, hidden_reasoning).Render();
}

}  // namespace switchyard::router
