// What an operator sees: models, readiness, metrics.
//
// The whole router but its workers (api_test_util.h).

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/raw_http_connection.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::HttpGet;
using ::switchyard::testing::RawHttpConnection;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using State = AttentionWorkerInfo::State;

TEST_F(ApiTest, ModelsVersionAndRequestIds) {
  Start();
  const Json list = *ParseJson(HttpGet(server_->port(), "/v1/models").body);
  EXPECT_EQ(list["data"][0]["id"], "demo");
  EXPECT_EQ(list["data"][0]["max_model_len"], 8192);
  EXPECT_EQ(HttpGet(server_->port(), "/v1/models/demo").status, 200);
  const auto other = HttpGet(server_->port(), "/v1/models/other");
  EXPECT_EQ(other.status, 404);
  EXPECT_THAT(other.body, HasSubstr(R"("code":"model_not_found")"));
  EXPECT_THAT(HttpGet(server_->port(), "/version").body, HasSubstr("version"));

  auto client = RawHttpConnection::Connect(server_->port());
  ASSERT_TRUE(client->Request("GET", "/livez", "", "X-Request-Id: abc-1\r\n"));
  EXPECT_EQ(client->ReadReply().head.Get("x-request-id"), "abc-1");
  ASSERT_TRUE(client->Request("GET", "/livez"));
  EXPECT_THAT(client->ReadReply().head.Get("x-request-id"),
              MatchesRegex("req-[0-9a-f]{24}"));
}

TEST_F(ApiTest, ReadinessSaysHowEachWorkerIs) {
  Start();
  EXPECT_EQ(HttpGet(server_->port(), "/readyz").status, 200);
  workers_[0]->SetState(State::kWaitingExperts, "experts 16-31 have no holder");
  const auto reply = HttpGet(server_->port(), "/readyz");
  EXPECT_EQ(reply.status, 503);
  EXPECT_NE(reply.head.Get("Retry-After"), "");
  const Json worker = (*ParseJson(reply.body))["workers"][0];
  EXPECT_EQ(worker["state"], "waiting_experts");
  EXPECT_EQ(worker["message"], "experts 16-31 have no holder");
  EXPECT_EQ(HttpGet(server_->port(), "/health").status, 503);
  EXPECT_EQ(HttpGet(server_->port(), "/livez").status, 200);
  // Requests wait at that worker, within their deadline.
  workers_[0]->Answer(Ids("ok"));
  PostJson(kChat, Hi());

  AttentionWorkerInfo loading;
  loading.state = State::kLoading;
  loading.loading_progress = 0.25;
  loading.message = "reading layer 12";
  workers_[0]->SetInfo(loading);
  EXPECT_THAT(HttpGet(server_->port(), "/readyz").body,
              HasSubstr(R"("loading_progress":0.25)"));
  timers_.Advance(absl::Minutes(1));  // nobody waits for it any more
  const auto refusal = Post(kChat, Hi());
  EXPECT_EQ(refusal.status, 503);
  EXPECT_NE(refusal.head.Get("Retry-After"), "");
  EXPECT_THAT(refusal.body, HasSubstr("reading layer 12"));
}

TEST_F(ApiTest, MetricsHaveTheNamesThatDashboardsKnow) {
  Start();
  const std::vector<int32_t> answer = Ids("ok");
  workers_[0]->Answer(answer);
  PostJson(kChat, Hi());
  const std::string vllm = R"({engine="0",model_name="demo"})";
  EXPECT_EQ(Metric("vllm:generation_tokens_total" + vllm),
            absl::StrCat(answer.size()));
  EXPECT_NE(Metric("vllm:prompt_tokens_total" + vllm), "0");
  EXPECT_EQ(
      Metric(
          R"(vllm:request_success_total{engine="0",finished_reason="stop",model_name="demo"})"),
      "1");
  for (const char* histogram :
       {"vllm:time_to_first_token_seconds", "vllm:e2e_request_latency_seconds",
        "vllm:request_queue_time_seconds", "vllm:request_prompt_tokens",
        "vllm:request_generation_tokens", "vllm:request_params_n"}) {
    EXPECT_EQ(Metric(absl::StrCat(histogram, "_count", vllm)), "1")
        << histogram;
  }
  EXPECT_EQ(Metric("vllm:inter_token_latency_seconds_count" + vllm),
            absl::StrCat(answer.size() - 1));
  EXPECT_EQ(Metric(R"(sglang:num_requests_total{model_name="demo"})"), "1");
  EXPECT_EQ(
      Metric(
          R"(http_requests_total{handler="/v1/chat/completions",method="POST",status="200"})"),
      "1");

  // A request that runs, one that waits, and a worker that is half full.
  AttentionWorkerInfo info = workers_[0]->info();
  info.state_bytes_used = 50;
  info.state_bytes_budget = 100;
  workers_[0]->SetInfo(info);
  EXPECT_EQ(Metric("vllm:kv_cache_usage_perc" + vllm), "0.5");
  EXPECT_EQ(Metric(R"(sglang:token_usage{model_name="demo"})"), "0.5");
  EXPECT_EQ(Metric("vllm:num_requests_running" + vllm), "0");
  EXPECT_EQ(Metric(R"(sglang:num_queue_reqs{model_name="demo"})"), "0");
}

TEST_F(ApiTest, GaugesCountWaitingAndRunningRequests) {
  Start();
  auto first = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto running = workers_[0]->WaitForCall(0, Soon());
  auto second = OpenStream(kChat, Hi());
  ASSERT_NE(workers_[0]->WaitForCall(1, Soon()), nullptr);
  running->Token(5);
  ASSERT_TRUE(first->ReadHead().has_value());
  const std::string labels = R"({engine="0",model_name="demo"})";
  EXPECT_EQ(Metric("vllm:num_requests_running" + labels), "1");
  EXPECT_EQ(Metric("vllm:num_requests_waiting" + labels), "1");
}

}  // namespace
}  // namespace switchyard::router
