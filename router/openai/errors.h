// Errors as OpenAI's clients expect them: an HTTP status and one JSON object.

#ifndef SWITCHYARD_ROUTER_OPENAI_ERRORS_H_
#define SWITCHYARD_ROUTER_OPENAI_ERRORS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "router/http/http_message.h"

namespace switchyard::router {

// INVALID_ARGUMENT about one field of the request, by its path:
// "messages[2].content". The path becomes error.param.
absl::Status ParamError(absl::string_view param, absl::string_view message);

struct ApiError {
  int http_status = 400;
  std::string message;
  std::string type;
  std::string param;            // "": null
  std::string code;             // "": null
  int retry_after_seconds = 0;  // 0: no Retry-After
  bool never_retry = false;     // a retry would only add load: x-should-retry
};

// INVALID_ARGUMENT, OUT_OF_RANGE -> 400; NOT_FOUND -> 404; RESOURCE_EXHAUSTED
// -> 429; UNAVAILABLE, FAILED_PRECONDITION, ABORTED, CANCELLED -> 503;
// DEADLINE_EXCEEDED -> 504; anything else is a worker's fault: 502. Never 500.
ApiError ToApiError(const absl::Status& status);

// An error of HTTP itself (404, 405, 413, ...) by its status.
ApiError HttpError(int http_status, absl::string_view message);

// {"error":{"message":...,"type":...,"param":...,"code":...}}
std::string ErrorBody(const ApiError& error);
HttpResponse ErrorResponse(const ApiError& error);
// Retry-After and the like.
void AddErrorHeaders(const ApiError& error, HttpResponse* response);

HttpResponse JsonResponse(int status, const Json& body);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_ERRORS_H_
