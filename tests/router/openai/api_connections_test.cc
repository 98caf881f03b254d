// Streams and their connections: clients that leave or read slowly, silence,
// and the end of the server.
//
// The whole router but its workers (api_test_util.h).

#include <cstdint>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/server.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/raw_http_connection.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::HttpGet;
using ::switchyard::testing::RawHttpConnection;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(ApiTest, ClientThatGoesAwayCancelsAtTheWorker) {
  Start();
  for (const bool stream : {false, true}) {
    const size_t index = workers_[0]->num_calls();
    auto client = OpenStream(
        kChat,
        Hi(absl::StrCat(R"("n":2,"stream":)", stream ? "true" : "false")));
    const auto first = workers_[0]->WaitForCall(index, Soon());
    const auto second = workers_[0]->WaitForCall(index + 1, Soon());
    ASSERT_NE(second, nullptr);
    first->Token(5);
    client->Close();
    EXPECT_TRUE(first->WaitUntilCancelled(Soon()));
    EXPECT_TRUE(second->WaitUntilCancelled(Soon()));
  }
}

TEST_F(ApiTest, SlowReaderIsCancelledAndOthersAreServed) {
  RouterServer::Options options;
  options.max_send_buffer_bytes = 64 << 10;
  options.http_threads = 1;
  Start(std::move(options));
  auto slow = RawHttpConnection::Connect(server_->port(), 4096);
  // Some 3 KB a token: far more than the kernel's buffers hold in the end.
  ASSERT_TRUE(slow->Request(
      "POST", kChat, Hi(R"("stream":true,"logprobs":true,"top_logprobs":20)")));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  ASSERT_GT(call->request().max_tokens, 4000);
  for (int64_t i = 0; i < call->request().max_tokens && call->Token(500); ++i) {
  }
  EXPECT_TRUE(call->WaitUntilCancelled(Soon()));
  workers_[0]->Answer(Ids("ok"));
  EXPECT_EQ(PostJson(kChat, Hi())["choices"][0]["message"]["content"], "ok");
}

TEST_F(ApiTest, SilentStreamGetsCommentsEveryFifteenSeconds) {
  Start();
  auto client = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  // Keep-alive and deadline.
  ASSERT_TRUE(timers_.WaitForTimers(kServerTimers + 2, Soon()));
  timers_.Advance(absl::Seconds(15));
  const auto head = client->ReadHead();
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(*client->ReadChunk(), ": keep-alive\n\n");
  // A token counts as a sign of life.
  ASSERT_TRUE(timers_.WaitForTimers(kServerTimers + 2, Soon()));
  timers_.Advance(absl::Seconds(10));
  call->Token(Ids("Hi", false)[0]);
  EXPECT_THAT(*client->ReadChunk(), HasSubstr(R"("role":"assistant")"));
  timers_.Advance(absl::Seconds(5));
  ASSERT_TRUE(timers_.WaitForTimers(kServerTimers + 2, Soon()));
  timers_.Advance(absl::Seconds(10));
  EXPECT_EQ(*client->ReadChunk(), ": keep-alive\n\n");
  call->Done(absl::OkStatus());
  EXPECT_THAT(client->ReadBody(*head), Not(HasSubstr("keep-alive")));
}

TEST_F(ApiTest, ShutdownDrainsThenEndsTheRestWithAnErrorEvent) {
  Start();
  auto ends = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto first = workers_[0]->WaitForCall(0, Soon());
  auto hangs = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto second = workers_[0]->WaitForCall(1, Soon());
  ASSERT_NE(second, nullptr);
  first->Token(Ids("Hi", false)[0]);
  second->Token(Ids("Hi", false)[0]);
  const auto head = ends->ReadHead();
  ASSERT_TRUE(head.has_value());

  std::thread shutdown([this] { server_->Shutdown(absl::Seconds(2)); });
  // New requests are refused, and readiness says why.
  const absl::Time deadline = Soon();
  while (HttpGet(server_->port(), "/readyz").status != 503 &&
         absl::Now() < deadline) {
  }
  EXPECT_THAT(HttpGet(server_->port(), "/readyz").body,
              HasSubstr("shutting down"));
  PostError(503, kChat, Hi());
  first->Done(absl::OkStatus());
  const auto ended = Events(ends->ReadBody(*head));
  EXPECT_EQ(ended.back(), "[DONE]");
  EXPECT_THAT(ended[ended.size() - 2], HasSubstr(R"("finish_reason":"stop")"));

  const auto cut = Events(hangs->ReadReply().body);
  ASSERT_GE(cut.size(), 2u);
  EXPECT_THAT(cut[cut.size() - 2],
              AllOf(HasSubstr(R"({"error":)"), HasSubstr("shutting down")));
  EXPECT_TRUE(second->WaitUntilCancelled(Soon()));
  ends.reset();
  hangs.reset();
  shutdown.join();
}

}  // namespace
}  // namespace switchyard::router
