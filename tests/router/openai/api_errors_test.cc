// Requests that cannot be answered: what is said, and with which status.
//
// The whole router but its workers (api_test_util.h).

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/server.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/matchers.h"
#include "tests/testing/raw_http_connection.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::HttpGet;
using ::switchyard::testing::RawHttpConnection;
using ::switchyard::testing::ScriptedAttentionClient;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

TEST_F(ApiTest, BadInputGetsAnErrorObjectAndTheServerStays) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"),
        std::string("\xff\xfe"), std::string(R"({"messages":"x"})"),
        std::string(R"({"messages":[]})"),
        std::string(R"({"messages":[{"role":"king","content":""}]})"),
        std::string(R"({"messages":[{"role":"user","content":{"a":1}}]})"),
        Hi(R"("temperature":"hot")"), Hi(R"("stream":true,"max_tokens":-1)"),
        std::string(100'000, '['), std::string(R"({"a":NaN})")}) {
    const Json error = PostError(400, kChat, body);
    EXPECT_EQ(error["type"], "invalid_request_error");
  }
  EXPECT_EQ(PostError(400, kChat, Hi(R"("n":"x")"))["param"], "n");
  // Ten megabytes of words: refused with the numbers, in any case.
  std::string words;
  while (words.size() < 10'000'000) words += "word ";
  const Json too_long = PostError(
      400, kCompletions, absl::StrCat(R"({"prompt":")", words, R"("})"));
  EXPECT_THAT(
      too_long["message"].get<std::string>(),
      AllOf(HasSubstr("8192"), MatchesRegex(".*has [0-9]{7,} tokens.*")));
  std::string ids = "[5";
  for (int i = 1; i < 9000; ++i) ids += ",5";
  const Json beyond =
      PostError(400, kCompletions, absl::StrCat(R"({"prompt":)", ids, "]}"));
  EXPECT_THAT(beyond["message"].get<std::string>(),
              AllOf(HasSubstr("9000"), HasSubstr("8192")));
  EXPECT_EQ(beyond["param"], "prompt");
  PostError(400, kCompletions, R"({"prompt":[1536]})");
  PostError(400, kCompletions, R"({"prompt":""})");
  PostError(413, kChat, std::string((16 << 20) + 1, ' '));
  EXPECT_EQ(PostJson(kChat, Hi())["choices"][0]["message"]["content"], "ok");
}

TEST_F(ApiTest, UnknownPathsAndMethods) {
  Start();
  EXPECT_EQ(HttpGet(server_->port(), "/v1/embeddings").status, 404);
  const auto wrong = HttpGet(server_->port(), kChat);
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.head.Get("Allow"), "POST, OPTIONS");
  PostError(404, "/v2/chat", "{}");
  PostError(405, "/v1/models", "{}");
  auto client = RawHttpConnection::Connect(server_->port());
  ASSERT_TRUE(client->Request("OPTIONS", kChat));
  EXPECT_EQ(client->ReadReply().status, 204);
  ASSERT_TRUE(client->Request("HEAD", "/health"));
  EXPECT_EQ(client->ReadHead()->status, 200);
}

TEST_F(ApiTest, WorkersErrorsHaveTheirHttpStatus) {
  Start();
  const std::pair<absl::Status, int> cases[] = {
      {absl::InvalidArgumentError("bad"), 400},
      {absl::ResourceExhaustedError("full"), 429},
      {absl::DeadlineExceededError("experts 3, 5 of layer 2 have no holder"),
       504},
      {absl::InternalError("broken"), 502},
      {absl::FailedPreconditionError("other weights"), 503},
  };
  for (const auto& [status, http_status] : cases) {
    workers_[0]->FailAll(status);
    EXPECT_THAT(
        PostError(http_status, kChat, Hi())["message"].get<std::string>(),
        HasSubstr(std::string(status.message())));
    // A stream that has not begun gets the status too.
    PostError(http_status, kChat, Hi(R"("stream":true)"));
  }
}

TEST_F(ApiTest, ErrorInTheMiddleOfAStreamIsAnEvent) {
  Start();
  auto client = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  call->Token(Ids("Hi", false)[0]);
  call->Done(absl::DeadlineExceededError("expert 7 has no holder"));
  const auto events = Events(client->ReadReply().body);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ((*ParseJson(events[1]))["error"]["message"],
            "expert 7 has no holder");
  EXPECT_EQ(events[2], "[DONE]");
}

TEST_F(ApiTest, TooManyOpenRequestsGet429) {
  RouterServer::Options options;
  options.max_open_requests = 1;
  Start(std::move(options));
  auto client = OpenStream(kChat, Hi());
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  const auto refusal = Post(kChat, Hi());
  EXPECT_EQ(refusal.status, 429);
  EXPECT_EQ(refusal.head.Get("Retry-After"), "1");
  call->Done(absl::OkStatus());
  EXPECT_EQ(client->ReadReply().status, 200);
  workers_[0]->Answer(Ids("ok"));
  PostJson(kChat, Hi());
}

TEST_F(ApiTest, TooManyWaitingTokensGet429) {
  RouterServer::Options options;
  options.max_waiting_tokens = 1;
  Start(std::move(options));
  auto client = OpenStream(kChat, Hi());
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  const auto refusal = Post(kChat, Hi());
  EXPECT_EQ(refusal.status, 429);
  EXPECT_THAT(refusal.body, HasSubstr("--max-queued-tokens"));
  EXPECT_GE(std::stoi(refusal.head.Get("Retry-After")), 1);
  EXPECT_THAT(HttpGet(server_->port(), "/metrics").body,
              HasSubstr("switchyard_router_waiting_prompt_tokens"));
  // Behind its first token nothing waits any more.
  call->Token(Ids("Hi", false)[0]);
  call->Done(absl::OkStatus());
  EXPECT_EQ(client->ReadReply().status, 200);
  workers_[0]->Answer(Ids("ok"));
  PostJson(kChat, Hi());
}

TEST(RouterServerTest, RefusesToStartWithNumbersAndNames) {
  RouterServer::Options options;
  EXPECT_THAT(RouterServer::Start(options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("--attention-workers")));
  options.workers.push_back(std::make_shared<ScriptedAttentionClient>("w"));
  options.model_dir = "/nowhere";
  EXPECT_THAT(
      RouterServer::Start(options),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/config.json")));
}

}  // namespace
}  // namespace switchyard::router
