#include "router/openai/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"

namespace switchyard::router {
namespace {

constexpr char kParamPayload[] = "switchyard/openai-param";

// The SDKs do not retry at all where Retry-After is above 120 seconds.
constexpr int kOverloadRetrySeconds = 1;
constexpr int kUnavailableRetrySeconds = 5;

}  // namespace

absl::Status ParamError(absl::string_view param, absl::string_view message) {
  absl::Status status =
      absl::InvalidArgumentError(absl::StrCat(param, ": ", message));
  status.SetPayload(kParamPayload, absl::Cord(param));
  return status;
}

ApiError HttpError(int http_status, absl::string_view message) {
  ApiError error;
  error.http_status = http_status;
  error.message = std::string(message);
  switch (http_status) {
    case 401:
      error.type = "authentication_error";
      error.code = "invalid_api_key";
      break;
    case 403:
      error.type = "permission_error";
      error.code = "insufficient_permissions";
      break;
    case 404:
      error.type = "invalid_request_error";
      error.code = "not_found";
      break;
    case 405:
      error.type = "invalid_request_error";
      error.code = "method_not_allowed";
      break;
    case 429:
      error.type = "rate_limit_error";
      error.code = "rate_limit_exceeded";
      error.retry_after_seconds = kOverloadRetrySeconds;
      break;
    case 502:
      error.type = "server_error";
      error.code = "worker_error";
      break;
    case 503:
      error.type = "server_error";
      error.code = "service_unavailable";
      error.retry_after_seconds = kUnavailableRetrySeconds;
      break;
    case 504:
      error.type = "server_error";
      error.code = "deadline_exceeded";
      error.never_retry = true;
      break;
    default:
      error.type = "invalid_request_error";
  }
  return error;
}

ApiError ToApiError(const absl::Status& status) {
  int http_status = 502;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      http_status = 400;
      break;
    case absl::StatusCode::kNotFound:
      http_status = 404;
      break;
    case absl::StatusCode::kResourceExhausted:
      http_status = 429;
      break;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
      http_status = 503;
      break;
    case absl::StatusCode::kDeadlineExceeded:
      http_status = 504;
      break;
    default:
      break;
  }
  ApiError error = HttpError(http_status, std::string(status.message()));
  if (const auto param = status.GetPayload(kParamPayload); param.has_value()) {
    error.param = std::string(*param);
  }
  return error;
}

std::string ErrorBody(const ApiError& error) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
  };
  return DumpJson({{"error",
                    {{"message", error.message},
                     {"type", error.type},
                     {"param", text_or_null(error.param)},
                     {"code", text_or_null(error.code)}}}});
}

void AddErrorHeaders(const ApiError& error, HttpResponse* response) {
  if (error.retry_after_seconds > 0) {
    response->headers.emplace_back("Retry-After",
                                   absl::StrCat(error.retry_after_seconds));
  }
  if (error.never_retry) {
    response->headers.emplace_back("x-should-retry", "false");
  }
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response;
  response.status = error.http_status;
  response.body = ErrorBody(error);
  AddErrorHeaders(error, &response);
  return response;
}

HttpResponse JsonResponse(int status, const Json& body) {
  HttpResponse response;
  response.status = status;
  response.body = DumpJson(body);
  return response;
}

}  // namespace switchyard::router
