// The renderers behind RenderChat, one for each family of templates.

#ifndef SWITCHYARD_ROUTER_TEXT_CHAT_RENDER_H_
#define SWITCHYARD_ROUTER_TEXT_CHAT_RENDER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "router/text/chat_format.h"

namespace switchyard::router {

// A member of an object, or null where it is missing ("undefined" in a
// template; JSON's null is a value).
const Json* FindMember(const Json& object, absl::string_view key);

// "messages[3] (user): WHAT".
absl::Status MessageError(const Json& messages, size_t index,
                          absl::string_view what);

// The string at `key` of messages[index], or an error.
absl::StatusOr<std::string> RequiredText(const Json& messages, size_t index,
                                         absl::string_view key);

// Both take messages that are a non-empty array of objects.
//
// kInstruct, kThinking, kHybrid, kSwitchable: calls as JSON.
// `hidden_reasoning` as RenderChat's; never null.
absl::StatusOr<std::string> RenderJsonStyle(ChatFormat format,
                                            const ChatPrompt& prompt,
                                            std::string* hidden_reasoning);
// kCoder: calls as XML.
absl::StatusOr<std::string> RenderCoder(const ChatPrompt& prompt);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_CHAT_RENDER_H_
