#include "router/client/grpc_attention_client.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/generation.grpc.pb.h"
#include "rpc/server.h"
#include "tests/testing/matchers.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using State = AttentionWorkerInfo::State;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

// What a request was told; a test waits for it.
class RecordingListener final : public TokenListener {
 public:
  void OnToken(const TokenEvent& event) override {
    MutexLock lock(&mutex_);
    SY_CHECK(!done_);
    ids_.push_back(event.id);
    changed_.SignalAll();
  }
  void OnDone(const absl::Status& status, TokenFinish finish,
              const TokenUsage& usage) override {
    MutexLock lock(&mutex_);
    SY_CHECK(!done_);  // exactly once
    done_ = true;
    status_ = status;
    finish_ = finish;
    usage_ = usage;
    changed_.SignalAll();
  }
  void OnMoveAdvised() override {
    MutexLock lock(&mutex_);
    advised_ = true;
    changed_.SignalAll();
  }
  bool WaitForAdvice() {
    MutexLock lock(&mutex_);
    const absl::Time deadline = Soon();
    while (!advised_) {
      if (!changed_.WaitUntil(&mutex_, deadline)) return false;
    }
    return true;
  }
  bool WaitForTokens(size_t n) {
    MutexLock lock(&mutex_);
    const absl::Time deadline = Soon();
    while (ids_.size() < n && !done_) {
      if (!changed_.WaitUntil(&mutex_, deadline)) return false;
    }
    return ids_.size() >= n;
  }
  bool WaitUntilDone() {
    MutexLock lock(&mutex_);
    const absl::Time deadline = Soon();
    while (!done_) {
      if (!changed_.WaitUntil(&mutex_, deadline)) return false;
    }
    return true;
  }
  std::vector<int32_t> ids() {
    MutexLock lock(&mutex_);
    return ids_;
  }
  absl::Status status() {
    MutexLock lock(&mutex_);
    SY_CHECK(done_);
    return status_;
  }
  TokenFinish finish() {
    MutexLock lock(&mutex_);
    return finish_;
  }
  TokenUsage usage() {
    MutexLock lock(&mutex_);
    return usage_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<int32_t> ids_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  bool advised_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  TokenFinish finish_ ABSL_GUARDED_BY(mutex_) = TokenFinish::kStop;
  TokenUsage usage_ ABSL_GUARDED_BY(mutex_);
};

// A worker whose every answer a test writes itself.
class ScriptedService final : public v1::Generation::Service {
 public:
  using Writer = grpc::ServerWriter<v1::GenerateReply>;
  using Script = std::function<grpc::Status(
      grpc::ServerContext*, const v1::GenerateRequest&, Writer*)>;

  void SetScript(Script script) {
    MutexLock lock(&mutex_);
    script_ = std::move(script);
  }
  void SetInfo(v1::WorkerInfo info, grpc::Status status = grpc::Status::OK) {
    MutexLock lock(&mutex_);
    info_ = std::move(info);
    info_status_ = std::move(status);
  }
  // The next GetWorkerInfo calls take until Release().
  void HoldInfo() {
    MutexLock lock(&mutex_);
    hold_info_ = true;
  }
  void Release() {
    MutexLock lock(&mutex_);
    hold_info_ = false;
    changed_.SignalAll();
  }

  int64_t questions() {
    MutexLock lock(&mutex_);
    return questions_;
  }
  // Until GetWorkerInfo has been called `n` times in all.
  bool WaitForQuestions(int64_t n) {
    const absl::Time deadline = Soon();
    MutexLock lock(&mutex_);
    while (questions_ < n) {
      if (!changed_.WaitUntil(&mutex_, deadline)) return false;
    }
    return true;
  }

  grpc::Status Generate(grpc::ServerContext* context,
                        const v1::GenerateRequest* request,
                        Writer* writer) override {
    Script script;
    {
      MutexLock lock(&mutex_);
      script = script_;
    }
    return script(context, *request, writer);
  }
  grpc::Status GetWorkerInfo(grpc::ServerContext*,
                             const v1::GetWorkerInfoRequest*,
                             v1::WorkerInfo* reply) override {
    MutexLock lock(&mutex_);
    ++questions_;
    changed_.SignalAll();
    while (hold_info_) {
      if (!changed_.WaitUntil(&mutex_, Soon())) break;
    }
    *reply = info_;
    return info_status_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  Script script_ ABSL_GUARDED_BY(mutex_);
  v1::WorkerInfo info_ ABSL_GUARDED_BY(mutex_);
  grpc::Status info_status_ ABSL_GUARDED_BY(mutex_);
  bool hold_info_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t questions_ ABSL_GUARDED_BY(mutex_) = 0;
};

v1::GenerateReply TokenReply(uint32_t id) {
  v1::GenerateReply reply;
  reply.mutable_token()->set_id(id);
  return reply;
}

v1::GenerateReply FinishedReply() {
  v1::GenerateReply reply;
  reply.mutable_finished()->set_reason(v1::Finished::LENGTH);
  reply.mutable_finished()->set_output_tokens(2);
  return reply;
}

// Until the client goes away; for requests that would run for ever.
grpc::Status WaitUntilCancelled(grpc::ServerContext* context) {
  const absl::Time deadline = Soon();
  while (!context->IsCancelled() && absl::Now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return grpc::Status::CANCELLED;
}

class GrpcAttentionClientTest : public ::testing::Test {
 protected:
  GrpcAttentionClientTest() {
    v1::WorkerInfo info;
    info.set_state(v1::WorkerInfo::READY);
    info.set_model_fingerprint("abc");
    info.set_running_requests(7);
    service_.SetInfo(info);
    service_.SetScript([](grpc::ServerContext*, const v1::GenerateRequest&,
                          ScriptedService::Writer* writer) {
      writer->Write(TokenReply(5));
      writer->Write(TokenReply(6));
      writer->Write(FinishedReply());
      return grpc::Status::OK;
    });
    StartServer(0);
    options_.address = absl::StrCat("127.0.0.1:", server_->port());
    options_.poll_interval = absl::Milliseconds(20);
  }
  ~GrpcAttentionClientTest() override {
    client_.reset();
    service_.Release();
    if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
  }

  void StartServer(int port) {
    auto server = rpc::Server::Start("127.0.0.1", port, {&service_});
    ASSERT_THAT(server, IsOk());
    server_ = *std::move(server);
  }
  void StartClient() {
    auto client = NewGrpcAttentionClient(options_);
    ASSERT_THAT(client, IsOk());
    client_ = *std::move(client);
  }
  // Until info() is so; false if it is not within the time.
  bool WaitForInfo(
      const std::function<bool(const AttentionWorkerInfo&)>& wanted) {
    const absl::Time deadline = Soon();
    while (!wanted(client_->info())) {
      if (absl::Now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  bool WaitForState(State state) {
    return WaitForInfo([state](const AttentionWorkerInfo& info) {
      return info.state == state;
    });
  }
  std::shared_ptr<RecordingListener> Generate(
      const std::string& id, absl::Time deadline = absl::InfiniteFuture()) {
    TokenRequest request;
    request.id = id;
    request.prompt_ids = {1, 2};
    request.max_tokens = 10;
    request.deadline = deadline;
    auto listener = std::make_shared<RecordingListener>();
    client_->Generate(request, listener);
    return listener;
  }

  ScriptedService service_;
  std::unique_ptr<rpc::Server> server_;
  GrpcAttentionClientOptions options_;
  std::unique_ptr<AttentionClient> client_;
};

TEST_F(GrpcAttentionClientTest, OptionsAreChecked) {
  EXPECT_THAT(NewGrpcAttentionClient({}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("address is empty")));
  EXPECT_THAT(
      NewGrpcAttentionClient(
          {.address = "a:1", .poll_interval = absl::ZeroDuration()}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("above 0")));
}

TEST_F(GrpcAttentionClientTest, StreamsTokensThenTheEnd) {
  StartClient();
  auto listener = Generate("a");
  ASSERT_TRUE(listener->WaitUntilDone());
  EXPECT_THAT(listener->status(), IsOk());
  EXPECT_THAT(listener->ids(), ElementsAre(5, 6));
  EXPECT_EQ(listener->finish(), TokenFinish::kLength);
  EXPECT_EQ(listener->usage().output_tokens, 2);
}

TEST_F(GrpcAttentionClientTest, PollsTheWorkersState) {
  StartClient();
  ASSERT_TRUE(WaitForState(State::kReady));
  EXPECT_EQ(client_->info().running_requests, 7);
  EXPECT_EQ(client_->name(), options_.address);
  v1::WorkerInfo info;
  info.set_state(v1::WorkerInfo::WAITING_EXPERTS);
  info.set_message("layer 3");
  service_.SetInfo(info);
  ASSERT_TRUE(WaitForState(State::kWaitingExperts));
  EXPECT_EQ(client_->info().message, "layer 3");
}

TEST_F(GrpcAttentionClientTest, SendsTheFingerprintThatTheWorkerSaid) {
  StartClient();
  ASSERT_TRUE(WaitForState(State::kReady));
  service_.SetScript([](grpc::ServerContext*,
                        const v1::GenerateRequest& request,
                        ScriptedService::Writer*) {
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                        "it was " + request.model_fingerprint());
  });
  auto listener = Generate("a");
  ASSERT_TRUE(listener->WaitUntilDone());
  EXPECT_THAT(
      listener->status(),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr("it was abc"), HasSubstr(options_.address))));
}

TEST_F(GrpcAttentionClientTest, NobodyThere) {
  server_->Shutdown(absl::ZeroDuration());
  server_.reset();
  StartClient();
  auto listener = Generate("a");
  ASSERT_TRUE(listener->WaitUntilDone());
  EXPECT_THAT(listener->status(), StatusIs(absl::StatusCode::kUnavailable,
                                           HasSubstr(options_.address)));
  ASSERT_TRUE(WaitForInfo([](const AttentionWorkerInfo& info) {
    return info.message != "not asked yet";
  }));
  EXPECT_EQ(client_->info().state, State::kUnreachable);
}

TEST_F(GrpcAttentionClientTest, AServerThatGoesAwayMidStreamIsUnavailable) {
  StartClient();
  ASSERT_TRUE(WaitForState(State::kReady));
  service_.SetScript([](grpc::ServerContext* context,
                        const v1::GenerateRequest&,
                        ScriptedService::Writer* writer) {
    writer->Write(TokenReply(5));
    return WaitUntilCancelled(context);
  });
  auto listener = Generate("a");
  ASSERT_TRUE(listener->WaitForTokens(1));
  const int port = server_->port();
  server_->Shutdown(absl::ZeroDuration());
  server_.reset();
  ASSERT_TRUE(listener->WaitUntilDone());
  EXPECT_THAT(listener->status(), StatusIs(absl::StatusCode::kUnavailable,
                                           HasSubstr(options_.address)));
  EXPECT_THAT(listener->ids(), ElementsAre(5));
  ASSERT_TRUE(WaitForState(State::kUnreachable));

  // And it is found again when it comes back.
  StartServer(port);
  ASSERT_TRUE(WaitForState(State::kReady));
}

TEST_F(GrpcAttentionClientTest, AStreamThatTheWorkerCancelsMayGoElsewhere) {
  StartClient();
  service_.SetScript([](grpc::ServerContext*, const v1::GenerateRequest&,
                        ScriptedService::Writer* writer) {
    writer->Write(TokenReply(5));
    return grpc::Status::CANCELLED;
  });
  auto listener = Generate("a");
  ASSERT_TRUE(listener->WaitUntilDone());
  EXPECT_THAT(listener->status(), StatusIs(absl::StatusCode::kUnavailable,
                                           HasSubstr("broke the stream off")));
}

TEST_F(GrpcAttentionClientTest, Cancel) {
  StartClient();
  service_.SetScript([](grpc::ServerContext* context,
                        const v1::GenerateRequest&,
                        ScriptedService::Writer* writer) {
    writer->Write(TokenReply(5));
    return WaitUntilCancelled(context);
  });
  auto listener = Generate("a");
  auto other = Generate("b");
  ASSERT_TRUE(listener->WaitForTokens(1));
  ASSERT_TRUE(other->WaitForTokens(1));
  client_->Cancel("nobody");
  client_->Cancel("a");
  client_->Cancel("a");
  ASSERT_TRUE(listener->WaitUntilDone());
  EXPECT_THAT(listener->status(),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("")));
  client_->Cancel("b");
  ASSERT_TRUE(other->WaitUntilDone());
}

TEST_F(GrpcAttentionClientTest, TheDeadlineEndsTheRequest) {
  StartClient();
  service_.SetScript(
      [](grpc::ServerContext* context, const v1::GenerateRequest&,
         ScriptedService::Writer*) { return WaitUntilCancelled(context); });
  auto listener = Generate("a", absl::Now() + absl::Milliseconds(100));
  ASSERT_TRUE(listener->WaitUntilDone());
  EXPECT_THAT(listener->status(),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
}

TEST_F(GrpcAttentionClientTest, AWorkerThatBreaksTheProtocol) {
  StartClient();
  const auto ends_with = [&](ScriptedService::Script script) {
    service_.SetScript(std::move(script));
    auto listener = Generate("a");
    EXPECT_TRUE(listener->WaitUntilDone());
    return listener->status();
  };
  EXPECT_THAT(
      ends_with([](grpc::ServerContext*, const v1::GenerateRequest&,
                   ScriptedService::Writer* writer) {
        writer->Write(TokenReply(5));
        return grpc::Status::OK;
      }),
      StatusIs(absl::StatusCode::kInternal, HasSubstr("without `finished`")));
  EXPECT_THAT(
      ends_with([](grpc::ServerContext* context, const v1::GenerateRequest&,
                   ScriptedService::Writer* writer) {
        writer->Write(TokenReply(0xffffffff));
        return WaitUntilCancelled(context);
      }),
      StatusIs(absl::StatusCode::kInternal, HasSubstr("4294967295")));
  EXPECT_THAT(
      ends_with([](grpc::ServerContext* context, const v1::GenerateRequest&,
                   ScriptedService::Writer* writer) {
        writer->Write(v1::GenerateReply());
        return WaitUntilCancelled(context);
      }),
      StatusIs(absl::StatusCode::kInternal, HasSubstr("empty reply")));
  EXPECT_THAT(
      ends_with([](grpc::ServerContext* context, const v1::GenerateRequest&,
                   ScriptedService::Writer* writer) {
        writer->Write(FinishedReply());
        writer->Write(TokenReply(1));
        return WaitUntilCancelled(context);
      }),
      StatusIs(absl::StatusCode::kInternal, HasSubstr("after `finished`")));
}

TEST_F(GrpcAttentionClientTest, ARequestThatTheMessageCannotHold) {
  StartClient();
  TokenRequest request;
  request.prompt_ids = {-1};
  auto listener = std::make_shared<RecordingListener>();
  client_->Generate(request, listener);
  ASSERT_TRUE(listener->WaitUntilDone());
  EXPECT_THAT(listener->status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("-1")));
}

TEST_F(GrpcAttentionClientTest, ABusyWorkerIsNotAnUnreachableOne) {
  options_.poll_timeout = absl::Milliseconds(50);
  options_.unreachable_after = absl::InfiniteDuration();
  StartClient();
  ASSERT_TRUE(WaitForState(State::kReady));
  service_.HoldInfo();
  // A question is only asked when the one before it has timed out.
  ASSERT_TRUE(service_.WaitForQuestions(service_.questions() + 3));
  EXPECT_EQ(client_->info().state, State::kReady);
  service_.Release();
}

TEST_F(GrpcAttentionClientTest, ASilentWorkersRequestsAreAdvisedToMove) {
  options_.poll_timeout = absl::Milliseconds(20);
  options_.silent_after = absl::Milliseconds(50);
  options_.unreachable_after = absl::InfiniteDuration();
  StartClient();
  service_.SetScript(
      [](grpc::ServerContext* context, const v1::GenerateRequest&,
         ScriptedService::Writer*) { return WaitUntilCancelled(context); });
  ASSERT_TRUE(WaitForState(State::kReady));
  auto listener = Generate("a");
  service_.HoldInfo();
  EXPECT_TRUE(listener->WaitForAdvice());
  EXPECT_TRUE(client_->info().silent);
  EXPECT_EQ(client_->info().state, State::kReady);
  service_.Release();
  EXPECT_TRUE(WaitForInfo(
      [](const AttentionWorkerInfo& info) { return !info.silent; }));
  client_->Cancel("a");
  EXPECT_TRUE(listener->WaitUntilDone());
}

TEST_F(GrpcAttentionClientTest, ADrainingWorkersRequestsAreAdvisedToMove) {
  StartClient();
  service_.SetScript(
      [](grpc::ServerContext* context, const v1::GenerateRequest&,
         ScriptedService::Writer*) { return WaitUntilCancelled(context); });
  auto listener = Generate("a");
  v1::WorkerInfo info;
  info.set_state(v1::WorkerInfo::DRAINING);
  service_.SetInfo(info);
  EXPECT_TRUE(listener->WaitForAdvice());
  EXPECT_EQ(client_->info().state, State::kDraining);
  client_->Cancel("a");
  EXPECT_TRUE(listener->WaitUntilDone());
}

// Its address is tried all the time, not when the next question would be due.
TEST_F(GrpcAttentionClientTest, AWorkerThatComesBackIsSeenAtOnce) {
  const int port = server_->port();
  server_->Shutdown(absl::ZeroDuration());
  server_.reset();
  options_.poll_interval = absl::Hours(1);
  StartClient();
  ASSERT_TRUE(WaitForInfo([](const AttentionWorkerInfo& info) {
    return info.message != "not asked yet";
  }));
  EXPECT_EQ(client_->info().state, State::kUnreachable);
  EXPECT_THAT(client_->info().message, HasSubstr("refused"));
  StartServer(port);
  EXPECT_TRUE(WaitForState(State::kReady));
}

TEST_F(GrpcAttentionClientTest, AWorkerThatLoadsIsAskedMoreOften) {
  options_.poll_interval = absl::Hours(1);
  v1::WorkerInfo info;
  info.set_state(v1::WorkerInfo::LOADING);
  service_.SetInfo(info);
  StartClient();
  ASSERT_TRUE(WaitForState(State::kLoading));
  info.set_state(v1::WorkerInfo::READY);
  service_.SetInfo(info);
  EXPECT_TRUE(WaitForState(State::kReady));
}

TEST_F(GrpcAttentionClientTest, AskNowDoesNotWaitForTheNextQuestion) {
  options_.poll_interval = absl::Hours(1);
  StartClient();
  ASSERT_TRUE(WaitForState(State::kReady));
  v1::WorkerInfo info;
  info.set_state(v1::WorkerInfo::DRAINING);
  service_.SetInfo(info);
  client_->AskNow();
  EXPECT_TRUE(WaitForState(State::kDraining));
}

TEST_F(GrpcAttentionClientTest, AWorkerThatNeverAnswersIsUnreachable) {
  options_.poll_timeout = absl::Milliseconds(20);
  options_.unreachable_after = absl::Milliseconds(100);
  StartClient();
  ASSERT_TRUE(WaitForState(State::kReady));
  service_.HoldInfo();
  EXPECT_TRUE(WaitForState(State::kUnreachable));
  service_.Release();
  EXPECT_TRUE(WaitForState(State::kReady));
}

TEST_F(GrpcAttentionClientTest, TheDestructorEndsWhatRuns) {
  StartClient();
  service_.SetScript([](grpc::ServerContext* context,
                        const v1::GenerateRequest&,
                        ScriptedService::Writer* writer) {
    writer->Write(TokenReply(5));
    return WaitUntilCancelled(context);
  });
  std::vector<std::shared_ptr<RecordingListener>> listeners;
  for (int i = 0; i < 8; ++i) listeners.push_back(Generate(absl::StrCat(i)));
  ASSERT_TRUE(listeners[0]->WaitForTokens(1));
  client_.reset();
  for (const auto& listener : listeners) {
    EXPECT_THAT(listener->status(),  // which is there already
                StatusIs(absl::StatusCode::kCancelled, HasSubstr("")));
  }
}

// For ThreadSanitizer.
TEST_F(GrpcAttentionClientTest, ManyRequestsAndCancellations) {
  StartClient();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.push_back(StartThread("storm", [this, t] {
      for (int i = 0; i < 50; ++i) {
        auto listener = Generate(absl::StrCat(t, "/", i));
        if (i % 3 == 0) client_->Cancel(absl::StrCat(t, "/", i));
        ASSERT_TRUE(listener->WaitUntilDone());
        const absl::Status status = listener->status();
        ASSERT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
      }
    }));
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace switchyard::router
