#include "router/text/chat_format.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/text/chat_render.h"
#include "router/text/python_text.h"

namespace switchyard::router {
namespace {

// Follows the text of the message that is to be continued. 0xFF is in no UTF-8
// text, so it can be found again; the space shows whether the template trimmed.
constexpr absl::string_view kContinueMark = "\xFF ";

absl::Status CheckMessages(const ChatPrompt& prompt) {
  if (!prompt.messages.is_array() || prompt.messages.empty()) {
    return absl::InvalidArgumentError(
        "messages must be a list with at least one message");
  }
  for (size_t i = 0; i < prompt.messages.size(); ++i) {
    if (!prompt.messages[i].is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "] is not an object"));
    }
  }
  if (!prompt.tools.is_null() && !prompt.tools.is_array()) {
    return absl::InvalidArgumentError("tools is not a list");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> RenderPlain(ChatFormat format,
                                        const ChatPrompt& prompt,
                                        std::string* hidden_reasoning) {
  if (format == ChatFormat::kCoder) return RenderCoder(prompt);
  return RenderJsonStyle(format, prompt, hidden_reasoning);
}

// The prompt ends with the last message's text, for the model to go on with.
absl::StatusOr<std::string> RenderContinued(ChatFormat format,
                                            const ChatPrompt& prompt,
                                            std::string* hidden_reasoning) {
  const Json* generate = FindMember(prompt.kwargs, "add_generation_prompt");
  if (generate != nullptr && PythonTruth(*generate)) {
    return absl::InvalidArgumentError(
        "continue_final_message and add_generation_prompt exclude each other");
  }
  const size_t last = prompt.messages.size() - 1;
  SY_ASSIGN_OR_RETURN(const std::string content,
                      RequiredText(prompt.messages, last, "content"));
  ChatPrompt marked = prompt;
  marked.messages[last]["content"] = absl::StrCat(content, kContinueMark);
  SY_ASSIGN_OR_RETURN(std::string text,
                      RenderPlain(format, marked, hidden_reasoning));
  const size_t mark = text.rfind(kContinueMark[0]);
  // Of text with </think> in it a format may show a part: going on from there
  // would not be what was asked for.
  if (mark == std::string::npos ||
      !absl::StrContains(text, PythonStrip(content))) {
    return MessageError(prompt.messages, last,
                        "continue_final_message: the format does not show all "
                        "of this message's text");
  }
  const bool trimmed =
      text.compare(mark, kContinueMark.size(), std::string(kContinueMark)) != 0;
  text.resize(mark);
  if (trimmed) text = std::string(PythonRightStrip(text));
  return text;
}

}  // namespace

const Json* FindMember(const Json& object, absl::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(key));
  return found == object.end() ? nullptr : &*found;
}

absl::Status MessageError(const Json& messages, size_t index,
                          absl::string_view what) {
  const Json* role = FindMember(messages[index], "role");
  return absl::InvalidArgumentError(absl::StrCat(
      "messages[", index, "] (",
      role != nullptr && role->is_string() ? role->get<std::string>()
                                           : "no role",
      "): ", what));
}

absl::StatusOr<std::string> RequiredText(const Json& messages, size_t index,
                                         absl::string_view key) {
  const Json* value = FindMember(messages[index], key);
  if (value == nullptr) {
    return MessageError(messages, index, absl::StrCat(key, " is missing"));
  }
  if (!value->is_string()) {
    return MessageError(messages, index, absl::StrCat(key, " is not text"));
  }
  return value->get<std::string>();
}

absl::StatusOr<std::string> RenderChat(ChatFormat format,
                                       const ChatPrompt& prompt,
                                       std::string* hidden_reasoning) {
  std::string hidden;
  if (hidden_reasoning == nullptr) hidden_reasoning = &hidden;
  hidden_reasoning->clear();
  SY_RETURN_IF_ERROR(CheckMessages(prompt));
  const Json* proceed = FindMember(prompt.kwargs, "continue_final_message");
  if (proceed != nullptr && PythonTruth(*proceed)) {
    return RenderContinued(format, prompt, hidden_reasoning);
  }
  return RenderPlain(format, prompt, hidden_reasoning);
}

bool PromptOpensThinking(ChatFormat format, const Json& kwargs) {
  const Json* generate = FindMember(kwargs, "add_generation_prompt");
  if (generate == nullptr || !PythonTruth(*generate)) return false;
  if (format == ChatFormat::kThinking) return true;
  const Json* thinking = FindMember(kwargs, "enable_thinking");
  return format == ChatFormat::kSwitchable && thinking != nullptr &&
         *thinking == true;
}

absl::StatusOr<ChatFormat> ParseChatFormat(absl::string_view name) {
  for (const ChatFormat format :
       {ChatFormat::kInstruct, ChatFormat::kThinking, ChatFormat::kCoder,
        ChatFormat::kHybrid, ChatFormat::kSwitchable}) {
    if (name == ChatFormatName(format)) return format;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name,
                   "\" is no chat format; there are instruct, "
                   "thinking, coder, hybrid and switchable"));
}

absl::string_view ChatFormatName(ChatFormat format) {
  switch (format) {
    case ChatFormat::kInstruct:
      return "instruct";
    case ChatFormat::kThinking:
      return "thinking";
    case ChatFormat::kCoder:
      return "coder";
    case ChatFormat::kHybrid:
      return "hybrid";
    case ChatFormat::kSwitchable:
      return "switchable";
  }
  return "unknown";
}

}  // namespace switchyard::router
