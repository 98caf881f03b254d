// A whole attention worker over the small model: alone, and with expert
// workers.

#include "attention_worker/server.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/json.h"
#include "base/thread.h"
#include "expert_worker/server.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "kernels/amx_kernels.h"
#include "proto/generation.grpc.pb.h"
#include "rpc/channel.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/http_client.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::HttpCall;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

// Polls `condition`; false if it isn't true within a minute.
bool WaitUntil(const std::function<bool()>& condition) {
  const absl::Time deadline = Soon();
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

ServerOptions Options() {
  ServerOptions options;
  options.worker.model_dir = FixturePath("tiny_a_bf16");
  options.host = "127.0.0.1";
  options.metrics_port = 0;
  options.worker.threads = 2;
  options.worker.state_memory_bytes = 64 << 20;
  options.drain_timeout = absl::Seconds(20);
  return options;
}

std::unique_ptr<Server> StartLoaded(ServerOptions options) {
  auto server = Server::Start(std::move(options));
  EXPECT_THAT(server, IsOk());
  if (!server.ok()) return nullptr;
  EXPECT_THAT((*server)->WaitUntilLoaded(Soon()), IsOk());
  return *std::move(server);
}

std::unique_ptr<expert_worker::Server> StartExperts(const std::string& slice,
                                                    int port = 0) {
  expert_worker::ServerOptions options;
  options.model_dir = FixturePath("tiny_a_bf16");
  options.host = "127.0.0.1";
  options.port = port;
  options.slice = slice;
  options.threads = 1;
  auto server = expert_worker::Server::Start(std::move(options));
  EXPECT_THAT(server, IsOk());
  if (!server.ok()) return nullptr;
  EXPECT_THAT((*server)->WaitUntilLoaded(Soon()), IsOk());
  return *std::move(server);
}

struct Outcome {
  std::vector<uint32_t> ids;
  std::vector<float> logprobs;
  grpc::Status status;
};

Outcome Generate(int port, uint32_t seed, uint32_t max_tokens,
                 absl::Duration timeout = absl::Seconds(60)) {
  const auto stub = v1::Generation::NewStub(
      rpc::NewChannel(absl::StrCat("127.0.0.1:", port)));
  v1::GenerateRequest request;
  request.set_request_id(absl::StrCat("request-", seed));
  for (uint32_t i = 0; i < 10 + seed; ++i) {
    request.add_prompt_ids((i * 37 + seed) % 512);
  }
  request.mutable_sampling()->set_seed(seed);
  request.set_max_tokens(max_tokens);
  request.set_want_logprobs(true);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  auto reader = stub->Generate(&context, request);
  Outcome outcome;
  v1::GenerateReply reply;
  while (reader->Read(&reply)) {
    if (!reply.has_token()) continue;
    outcome.ids.push_back(reply.token().id());
    outcome.logprobs.push_back(reply.token().logprob());
  }
  outcome.status = reader->Finish();
  return outcome;
}

Json Readyz(const Server& server, int* status) {
  const auto reply = HttpCall(server.metrics_port(), "GET", "/readyz");
  EXPECT_THAT(reply, IsOk());
  if (!reply.ok()) return Json();
  *status = reply->status;
  const auto json = ParseJson(reply->body);
  EXPECT_THAT(json, IsOk());
  return json.ok() ? *json : Json();
}

TEST(AttentionServerTest, ServesWithItsOwnExperts) {
  const auto server = StartLoaded(Options());
  ASSERT_NE(server, nullptr);
  EXPECT_EQ(server->info().state, WorkerState::kReady);
  int status = 0;
  const Json ready = Readyz(*server, &status);
  EXPECT_EQ(status, 200);
  EXPECT_EQ(ready["state"], "READY");
  EXPECT_EQ(ready["loading_progress"], 1.0);
  EXPECT_EQ(ready["state_bytes_budget"], 64 << 20);

  // Alone, then all at once: the same tokens and logprobs.
  std::vector<Outcome> alone;
  for (uint32_t seed = 0; seed < 6; ++seed) {
    alone.push_back(Generate(server->port(), seed, 12));
    ASSERT_TRUE(alone.back().status.ok())
        << alone.back().status.error_message();
    ASSERT_EQ(alone.back().ids.size(), 12);
  }
  std::vector<Outcome> together(6);
  std::vector<std::thread> clients;
  for (uint32_t seed = 0; seed < 6; ++seed) {
    clients.push_back(StartThread("client", [&, seed] {
      together[seed] = Generate(server->port(), seed, 12);
    }));
  }
  for (std::thread& client : clients) client.join();
  for (uint32_t seed = 0; seed < 6; ++seed) {
    EXPECT_TRUE(together[seed].status.ok())
        << together[seed].status.error_message();
    EXPECT_EQ(together[seed].ids, alone[seed].ids);
    EXPECT_EQ(together[seed].logprobs, alone[seed].logprobs);
  }
  const auto metrics = HttpCall(server->metrics_port(), "GET", "/metrics");
  ASSERT_THAT(metrics, IsOk());
  EXPECT_TRUE(
      absl::StrContains(metrics->body,
                        "vllm:generation_tokens_total{engine=\"0\",model_name="
                        "\"tiny_a_bf16\"} 144"));
  EXPECT_TRUE(absl::StrContains(
      metrics->body, absl::StrCat("switchyard_kernels_info{kernels=\"",
                                  kernels::DescribeKernels(), "\"} 1")));
}

TEST(AttentionServerTest, ExpertWorkersGiveTheSameTokens) {
  const auto local = StartLoaded(Options());
  const auto first = StartExperts("1/2");
  auto second = StartExperts("2/2");
  ASSERT_TRUE(local && first && second);
  const int second_port = second->port();
  ServerOptions options = Options();
  options.expert_workers =
      absl::StrCat("127.0.0.1:", first->port(), ", 127.0.0.1:", second_port);
  const auto server = StartLoaded(options);
  ASSERT_NE(server, nullptr);
  ASSERT_TRUE(
      WaitUntil([&] { return server->info().state == WorkerState::kReady; }));
  const Outcome expected = Generate(local->port(), 3, 12);
  ASSERT_TRUE(expected.status.ok());
  const Outcome got = Generate(server->port(), 3, 12);
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.ids, expected.ids);
  EXPECT_EQ(got.logprobs, expected.logprobs);

  // Half of the experts go: the worker says which, and requests fail by name.
  second.reset();
  ASSERT_TRUE(WaitUntil(
      [&] { return server->info().state == WorkerState::kWaitingExperts; }));
  int status = 0;
  const Json waiting = Readyz(*server, &status);
  EXPECT_EQ(status, 503);
  EXPECT_EQ(waiting["state"], "WAITING_EXPERTS");
  EXPECT_THAT(waiting["message"].get<std::string>(), HasSubstr("8-15"));
  EXPECT_THAT(waiting["message"].get<std::string>(),
              HasSubstr(absl::StrCat("127.0.0.1:", second_port)));
  const Outcome failed =
      Generate(server->port(), 3, 12, absl::Milliseconds(1500));
  EXPECT_EQ(failed.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);

  // They come back at the same address, and all is well again.
  second = StartExperts("2/2", second_port);
  ASSERT_NE(second, nullptr);
  ASSERT_TRUE(
      WaitUntil([&] { return server->info().state == WorkerState::kReady; }));
  EXPECT_EQ(Generate(server->port(), 3, 12).ids, expected.ids);
}

TEST(AttentionServerTest, ShutdownLetsRequestsFinishAndRefusesNewOnes) {
  const auto server = StartLoaded(Options());
  ASSERT_NE(server, nullptr);
  Outcome running;
  std::thread client = StartThread(
      "client", [&] { running = Generate(server->port(), 1, 100); });
  ASSERT_TRUE(WaitUntil([&] { return server->info().load.running == 1; }));
  const int port = server->port();
  std::thread stopper = StartThread("stopper", [&] { server->Shutdown(); });
  ASSERT_TRUE(WaitUntil(
      [&] { return server->info().state == WorkerState::kDraining; }));
  EXPECT_EQ(Generate(port, 2, 1).status.error_code(),
            grpc::StatusCode::UNAVAILABLE);
  client.join();
  stopper.join();
  EXPECT_TRUE(running.status.ok()) << running.status.error_message();
  EXPECT_EQ(running.ids.size(), 100);
  EXPECT_EQ(server->port(), port);  // also afterwards
  EXPECT_EQ(server->info().state, WorkerState::kDraining);
}

TEST(AttentionServerTest, WhatIsLeftAfterTheDrainIsUnavailable) {
  ServerOptions options = Options();
  options.drain_timeout = absl::ZeroDuration();
  const auto server = StartLoaded(options);
  ASSERT_NE(server, nullptr);
  Outcome running;
  std::thread client = StartThread(
      "client", [&] { running = Generate(server->port(), 1, 240); });
  ASSERT_TRUE(WaitUntil([&] { return server->info().load.running == 1; }));
  server->Shutdown();
  client.join();
  EXPECT_EQ(running.status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(AttentionServerTest, ABadCheckpointIsReportedAndRefusesRequests) {
  ServerOptions options = Options();
  options.worker.model_dir = "/nonexistent";
  bool told = false;
  options.on_load_failed = [&told] { told = true; };
  auto server = Server::Start(options);
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT((*server)->WaitUntilLoaded(Soon()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nonexistent")));
  const Outcome refused = Generate((*server)->port(), 1, 1);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("/nonexistent"));
  int status = 0;
  EXPECT_THAT(Readyz(**server, &status)["message"].get<std::string>(),
              HasSubstr("/nonexistent"));
  EXPECT_EQ(status, 503);
  server->reset();  // joins the loading thread
  EXPECT_TRUE(told);
}

TEST(AttentionServerTest, APortInUseIsNamed) {
  const auto server = StartLoaded(Options());
  ASSERT_NE(server, nullptr);
  ServerOptions options = Options();
  options.port = server->port();
  EXPECT_THAT(Server::Start(options).status(),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr(absl::StrCat(server->port()))));
  options = Options();
  options.metrics_port = server->metrics_port();
  EXPECT_THAT(Server::Start(options).status(),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr(absl::StrCat(server->metrics_port()))));
}

TEST(AttentionServerTest, OptionsAreChecked) {
  const auto refusal = [](auto change) {
    ServerOptions options = Options();
    change(&options);
    return Server::Start(options).status();
  };
  const auto invalid = [](const char* text) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text));
  };
  EXPECT_THAT(refusal([](auto* o) { o->worker.model_dir = ""; }),
              invalid("no model directory"));
  EXPECT_THAT(refusal([](auto* o) { o->port = 70000; }), invalid("70000"));
  EXPECT_THAT(refusal([](auto* o) { o->expert_workers = "a:1,,b:2"; }),
              invalid("host:port"));
  EXPECT_THAT(refusal([](auto* o) { o->expert_workers = "a:1,a:1"; }),
              invalid("a:1 twice"));
  EXPECT_THAT(refusal([](auto* o) { o->worker.threads = -1; }), invalid("-1"));
  EXPECT_THAT(refusal([](auto* o) { o->worker.chunked_prefill_size = 0; }),
              invalid("chunked_prefill_size"));
  EXPECT_THAT(refusal([](auto* o) { o->worker.max_model_len = 1; }),
              invalid("context_length is 1"));
  EXPECT_THAT(refusal([](auto* o) { o->worker.hedge_share = 1.5; }),
              invalid("hedge_share 1.5"));
}

}  // namespace
}  // namespace switchyard::attention_worker
