// API keys and limits, over HTTP.
//
// The whole router but its workers (api_test_util.h).

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/raw_http_connection.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::HttpGet;
using ::switchyard::testing::RawHttpConnection;

class ApiAccessTest : public ApiTest {
 protected:
  RawHttpConnection::Reply Ask(const std::string& headers) {
    workers_[0]->Answer(Ids("ok"));
    auto client = RawHttpConnection::Connect(server_->port());
    EXPECT_TRUE(client->Request("POST", kChat, Hi(), headers));
    return client->ReadReply();
  }
  static std::string Code(const RawHttpConnection::Reply& reply) {
    return (*ParseJson(reply.body))["error"]["code"].get<std::string>();
  }
};

TEST_F(ApiAccessTest, WantsAKey) {
  RouterServer::Options options;
  options.api_keys = {"open-sesame"};
  Start(std::move(options));
  const auto refused = Ask("");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(Code(refused), "invalid_api_key");
  EXPECT_EQ(refused.head.Get("WWW-Authenticate"), "Bearer");
  EXPECT_NE(refused.head.Get("x-request-id"), "");
  EXPECT_EQ(Ask("Authorization: Bearer open\r\n").status, 401);
  EXPECT_EQ(Ask("Authorization: Bearer open-sesame\r\n").status, 200);
  EXPECT_EQ(Ask("X-Api-Key: open-sesame\r\n").status, 200);
  EXPECT_EQ(HttpGet(server_->port(), "/v1/models").status, 401);
  EXPECT_EQ(HttpGet(server_->port(), "/readyz").status, 200);
  EXPECT_EQ(HttpGet(server_->port(), "/no/such/path").status, 401);
}

TEST_F(ApiAccessTest, TokensOfAnswersCount) {
  RouterServer::Options options;
  options.tokens_per_minute = 1;
  Start(std::move(options));
  EXPECT_EQ(Ask("").status, 200);
  const auto refused = Ask("");
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(Code(refused), "rate_limit_exceeded");
  EXPECT_GT(std::stoi(refused.head.Get("Retry-After")), 60);
}

}  // namespace
}  // namespace switchyard::router
