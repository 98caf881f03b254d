// OpenAI's POST /v1/responses, as the chat request that means the same.

#ifndef SWITCHYARD_ROUTER_RESPONSES_RESPONSES_REQUEST_H_
#define SWITCHYARD_ROUTER_RESPONSES_RESPONSES_REQUEST_H_

#include <string>

#include "absl/status/statusor.h"
#include "base/json.h"

namespace switchyard::router {

struct ResponsesRequest {
  Json chat;     // a body for ParseChatRequest (openai/request.h)
  Json input;    // the request's own items, normalised to a list
  Json history;  // earlier items of the conversation, then `input`
  bool store = true;
  bool background = false;
  // What the response object repeats of the request.
  Json echo;
};

// `body.previous_response_id`, if any: that response's history is put in front
// of the input. "" if there is none. INVALID_ARGUMENT if it is no string.
absl::StatusOr<std::string> PreviousResponseId(const Json& body);

// `earlier`: items in front of the input, a list. INVALID_ARGUMENT with the
// path of what is wrong, or is not served (images, hosted tools).
absl::StatusOr<ResponsesRequest> ParseResponsesRequest(const Json& body,
                                                       const Json& earlier);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_RESPONSES_RESPONSES_REQUEST_H_
