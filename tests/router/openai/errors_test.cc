#include "router/openai/errors.h"

#include "gtest/gtest.h"

namespace switchyard::router {
namespace {

TEST(ErrorsTest, EveryStatusHasItsHttpStatusAndNoneIs500) {
  for (int code = 1; code <= 16; ++code) {
    const ApiError error =
        ToApiError(absl::Status(static_cast<absl::StatusCode>(code), "why"));
    EXPECT_NE(error.http_status, 500) << code;
    EXPECT_GE(error.http_status, 400) << code;
    EXPECT_EQ(error.message, "why");
    EXPECT_FALSE(error.type.empty());
  }
  EXPECT_EQ(ToApiError(absl::InvalidArgumentError("")).http_status, 400);
  EXPECT_EQ(ToApiError(absl::ResourceExhaustedError("")).http_status, 429);
  EXPECT_EQ(ToApiError(absl::UnavailableError("")).http_status, 503);
  EXPECT_EQ(ToApiError(absl::DeadlineExceededError("")).http_status, 504);
  EXPECT_EQ(ToApiError(absl::InternalError("")).http_status, 502);
}

TEST(ErrorsTest, BodyIsOpenAis) {
  EXPECT_EQ(ErrorBody(ToApiError(ParamError("messages[2].role", "is wrong"))),
            R"({"error":{"message":"messages[2].role: is wrong",)"
            R"("type":"invalid_request_error","param":"messages[2].role",)"
            R"("code":null}})");
}

TEST(ErrorsTest, OverloadSaysWhenToRetry) {
  const HttpResponse full =
      ErrorResponse(ToApiError(absl::ResourceExhaustedError("full")));
  ASSERT_EQ(full.headers.size(), 1u);
  EXPECT_EQ(full.headers[0].first, "Retry-After");
  const HttpResponse late =
      ErrorResponse(ToApiError(absl::DeadlineExceededError("late")));
  ASSERT_EQ(late.headers.size(), 1u);
  EXPECT_EQ(late.headers[0],
            (std::pair<std::string, std::string>("x-should-retry", "false")));
}

}  // namespace
}  // namespace switchyard::router
