// New requests while no attention worker can take any: a pause while one is
// expected back, else 503.
//
// The whole router but its workers (api_test_util.h).

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/server.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::RawHttpConnection;
using ::switchyard::testing::ScriptedAttentionClient;
using ::testing::HasSubstr;
using State = AttentionWorkerInfo::State;

// Of a request that is not a stream and waits for a worker: its deadline and
// when it looks again.
constexpr size_t kWaitingTimers = kServerTimers + 2;

class WorkerGapTest : public ApiTest {
 protected:
  // A server whose only worker has been ready until now.
  void StartAndLose(RouterServer::Options options = {}) {
    Start(std::move(options));
    workers_[0]->SetState(State::kUnreachable, "Connection refused");
  }
  std::unique_ptr<RawHttpConnection> OpenWaiting(
      const std::string& fields = "") {
    const bool is_stream = absl::StrContains(fields, "stream");
    auto client = OpenStream(kChat, Hi(fields));
    // A stream's keep-alive has a timer, too.
    EXPECT_TRUE(
        timers_.WaitForTimers(kWaitingTimers + (is_stream ? 1 : 0), Soon()));
    EXPECT_EQ(workers_[0]->num_calls(), 0u);
    return client;
  }
};

TEST_F(WorkerGapTest, ARequestWaitsUntilAWorkerIsBack) {
  StartAndLose();
  auto client = OpenWaiting();
  EXPECT_EQ(Metric("switchyard_router_waits_for_worker_total"), "1");
  EXPECT_EQ(
      Metric(R"(vllm:num_requests_waiting{engine="0",model_name="demo"})"),
      "1");
  timers_.Advance(absl::Seconds(4));
  EXPECT_TRUE(
      timers_.WaitForTimers(kWaitingTimers, Soon()));  // goes on waiting
  workers_[0]->Answer(Ids("Hi you"));
  workers_[0]->SetState(State::kReady);
  timers_.Advance(absl::Milliseconds(500));
  const RawHttpConnection::Reply reply = client->ReadReply();
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.body, HasSubstr(R"("content":"Hi you")"));
  EXPECT_EQ(Metric("switchyard_router_waits_for_worker_total"), "1");
  EXPECT_EQ(Metric("switchyard_router_replays_total"), "0");
}

TEST_F(WorkerGapTest, AStreamWaitsTooAndBeginsWithTheFirstToken) {
  StartAndLose();
  auto client = OpenStream(kChat, Hi(R"("stream":true)"));
  // The keep-alive's beside those of others.
  ASSERT_TRUE(timers_.WaitForTimers(kWaitingTimers + 1, Soon()));
  workers_[0]->Answer(Ids("Hi you"));
  workers_[0]->SetState(State::kReady);
  timers_.Advance(absl::Milliseconds(500));
  const RawHttpConnection::Reply reply = client->ReadReply();
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.body, ::testing::StartsWith("data: "));
  EXPECT_EQ(StreamedContent(Events(reply.body)), "Hi you");
}

TEST_F(WorkerGapTest, AfterTheGraceItIsRefusedAndLaterOnesAtOnce) {
  RouterServer::Options options;
  options.worker_grace = absl::Seconds(3);
  StartAndLose(std::move(options));
  auto client = OpenWaiting(R"("stream":true)");
  timers_.Advance(absl::Seconds(3));
  RawHttpConnection::Reply reply = client->ReadReply();
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.head.Get("Retry-After"), "5");
  EXPECT_THAT(reply.body,
              HasSubstr("worker-0: unreachable (Connection refused)"));
  EXPECT_THAT(PostError(503, kChat, Hi())["message"].get<std::string>(),
              HasSubstr("worker-0: unreachable (Connection refused)"));
  EXPECT_EQ(Metric("switchyard_router_waits_for_worker_total"), "1");
}

TEST_F(WorkerGapTest, NobodyIsWaitedForWhoWasNeverReady) {
  auto loading = std::make_shared<ScriptedAttentionClient>("worker-0");
  loading->SetState(State::kLoading);
  RouterServer::Options options;
  options.workers = {loading};
  Start(std::move(options), /*num_workers=*/0);
  PostError(503, kChat, Hi());
  EXPECT_EQ(Metric("switchyard_router_waits_for_worker_total"), "0");
}

TEST_F(WorkerGapTest, ZeroTurnsItOff) {
  RouterServer::Options options;
  options.worker_grace = absl::ZeroDuration();
  StartAndLose(std::move(options));
  PostError(503, kChat, Hi());
}

// Without requests nobody asks the pool; the server looks by itself.
TEST_F(WorkerGapTest, TheGraceCountsFromTheLossNotFromTheLastRequest) {
  Start();
  timers_.Advance(absl::Minutes(10));
  workers_[0]->SetState(State::kDraining);
  auto client = OpenWaiting();
  workers_[0]->Answer(Ids("ok"));
  workers_[0]->SetState(State::kReady);
  timers_.Advance(absl::Milliseconds(500));
  EXPECT_EQ(client->ReadReply().status, 200);
}

TEST_F(WorkerGapTest, ItsOwnDeadlineEndsTheWaitFirst) {
  StartAndLose();
  auto client = OpenWaiting(R"("timeout":2)");
  timers_.Advance(absl::Seconds(2));
  const RawHttpConnection::Reply reply = client->ReadReply();
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, HasSubstr("worker-0: unreachable"));
}

TEST_F(WorkerGapTest, AClientThatLeavesEndsTheWait) {
  StartAndLose();
  auto client = OpenWaiting();
  client.reset();
  const char kWaiting[] =
      R"(vllm:num_requests_waiting{engine="0",model_name="demo"})";
  const absl::Time deadline = Soon();
  while (Metric(kWaiting) != "0" && absl::Now() < deadline) {
  }
  EXPECT_EQ(Metric(kWaiting), "0");
  EXPECT_EQ(timers_.num_timers(), kServerTimers);
  workers_[0]->SetState(State::kReady);
  timers_.Advance(absl::Seconds(1));
  EXPECT_EQ(workers_[0]->num_calls(), 0u);
}

// Those that wait are open requests.
TEST_F(WorkerGapTest, WaitingIsBoundedByAdmission) {
  RouterServer::Options options;
  options.max_open_requests = 1;
  StartAndLose(std::move(options));
  auto client = OpenWaiting();
  PostError(429, kChat, Hi());
}

// What the prompt may be, and whose answer a stream is, does not depend on
// whether a worker is there just now.
TEST_F(WorkerGapTest, TheModelIsNotForgotten) {
  Start();
  AttentionWorkerInfo info = workers_[0]->info();
  info.max_model_len = 20;
  workers_[0]->SetInfo(info);
  timers_.Advance(absl::Seconds(1));  // the server looks
  workers_[0]->SetState(State::kUnreachable);
  std::string prompt;
  for (int i = 0; i < 30; ++i) absl::StrAppend(&prompt, i > 0 ? "," : "", i);
  const Json error =
      PostError(400, kCompletions,
                absl::StrCat(R"({"model":"m","prompt":[)", prompt, "]}"));
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("20"));
}

}  // namespace
}  // namespace switchyard::router
