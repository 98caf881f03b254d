// Messages and tools -> the prompt's text, in the formats of the Qwen3-Next
// family.

#ifndef SWITCHYARD_ROUTER_TEXT_CHAT_FORMAT_H_
#define SWITCHYARD_ROUTER_TEXT_CHAT_FORMAT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"

namespace switchyard::router {

enum class ChatFormat {
  kInstruct,  // Qwen3-Next-Instruct
  kThinking,  // Qwen3-Next-Thinking: the prompt opens <think>
  kCoder,     // Qwen3-Coder-Next: calls in XML
  kHybrid,  // first Qwen3 release: enable_thinking=false closes <think> at once
  kSwitchable,  // Instruct that opens <think> when enable_thinking is true
};

struct ChatPrompt {
  Json messages;  // array of objects, as the client sent them
  Json tools;     // array, or null
  // add_generation_prompt, enable_thinking, continue_final_message ...: the
  // template's keyword arguments; unknown ones are ignored. Of our own:
  // preserve_thinking shows the reasoning of all answers, which templates hide
  // once a user has written again. The prompt is then what the model has read
  // and written so far, and all of it comes from the prefix cache.
  Json kwargs = Json::object();
};

// Renders as the model's own Jinja template would. INVALID_ARGUMENT where the
// template would raise, with what is wrong and in which message.
// `hidden_reasoning`, unless null: gets the messages' reasoning that the format
// has a place for, but does not show.
absl::StatusOr<std::string> RenderChat(ChatFormat format,
                                       const ChatPrompt& prompt,
                                       std::string* hidden_reasoning = nullptr);

// Does the prompt that RenderChat gives end inside an open <think>?
bool PromptOpensThinking(ChatFormat format, const Json& kwargs);

// "instruct", "thinking", "coder", "hybrid", "switchable".
absl::StatusOr<ChatFormat> ParseChatFormat(absl::string_view name);
absl::string_view ChatFormatName(ChatFormat format);

// Recognises the format of a checkpoint from its template's text
// (chat_template.jinja, or tokenizer_config.json's chat_template).
// INVALID_ARGUMENT when it is none of those; NOT_FOUND when there is no
// template.
absl::StatusOr<ChatFormat> DetectChatFormat(const std::string& directory);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_CHAT_FORMAT_H_
