// The many dialects of `messages` and `tools` -> the one that chat formats
// take.

#ifndef SWITCHYARD_ROUTER_OPENAI_CHAT_MESSAGES_H_
#define SWITCHYARD_ROUTER_OPENAI_CHAT_MESSAGES_H_

#include "absl/status/statusor.h"
#include "base/json.h"

namespace switchyard::router {

// Every message of the result has `role` (system, user, assistant or tool;
// developer becomes system, function becomes tool) and a string `content` (null
// and missing become ""; text parts are joined by line feeds). Arguments of
// tool calls that are the JSON text of an object become that object; other text
// stays. What changes with every request in the line that a known coding agent
// puts into system messages becomes a constant. `reasoning` is also understood
// as `reasoning_content`. Nulls vanish; other fields stay. INVALID_ARGUMENT
// with the path of what is wrong.
absl::StatusOr<Json> NormaliseMessages(const Json& messages);

// An array of {"type":"function","function":{"name":...}}, or null if there are
// none.
absl::StatusOr<Json> NormaliseTools(const Json& tools);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_CHAT_MESSAGES_H_
