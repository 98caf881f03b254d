// Anthropic's POST /v1/messages, as the chat request of OpenAI's API that means
// the same.

#ifndef SWITCHYARD_ROUTER_ANTHROPIC_MESSAGES_REQUEST_H_
#define SWITCHYARD_ROUTER_ANTHROPIC_MESSAGES_REQUEST_H_

#include "absl/status/statusor.h"
#include "base/json.h"

namespace switchyard::router {

// A body for ParseChatRequest (openai/request.h). Tool results become messages
// of the role tool, in front of the text beside them; thinking blocks become
// the assistant's reasoning. Without `thinking` the model is asked not to
// think, as this API has it. Fields that only OpenAI's API knows pass through.
// `max_tokens` may be absent only if `counting`. INVALID_ARGUMENT with the path
// of what is wrong, or is not served (images, hosted tools).
absl::StatusOr<Json> ChatFromMessages(const Json& body, bool counting);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ANTHROPIC_MESSAGES_REQUEST_H_
