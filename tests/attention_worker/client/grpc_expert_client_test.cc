#include "attention_worker/client/grpc_expert_client.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attention_worker/moe/holder_table.h"
#include "base/mutex.h"
#include "gmock/gmock.h"
#include "grpcpp/support/server_callback.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "metrics/series_lease.h"
#include "tests/attention_worker/client/client_test_util.h"
#include "tests/attention_worker/client/grpc_expert_client_fixture.h"
#include "tests/attention_worker/client/scripted_expert_server.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_expert_worker.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeExpertWorker;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(GrpcExpertClientTest, BadOptionsAreRefused) {
  EXPECT_THAT(NewGrpcExpertClient(Options("")),
              StatusIs(absl::StatusCode::kInvalidArgument));
  GrpcExpertClientOptions options = Options("localhost:1");
  options.hidden_size = 0;
  EXPECT_THAT(NewGrpcExpertClient(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(GrpcExpertClientTest, AWorkerThatIsGoneIsForgottenInTime) {
  testing::FakeClock clock;
  metrics::ForgetUnleasedSeries(registry_.get(), &clock, absl::Minutes(10));
  const FakeExpertWorker worker({});
  Connect(Options(worker.address()));
  ASSERT_TRUE(WaitUntilConnected());
  auto holder =
      std::make_unique<HolderMetrics>(registry_.get(), worker.address());
  client_.reset();
  clock.Advance(absl::Hours(1));
  // The dispatcher still has it.
  EXPECT_THAT(registry_->Expose(), HasSubstr(worker.address()));
  holder.reset();
  clock.Advance(absl::Minutes(9));
  EXPECT_THAT(registry_->Expose(), HasSubstr(worker.address()));
  clock.Advance(absl::Minutes(1));
  EXPECT_THAT(registry_->Expose(), Not(HasSubstr(worker.address())));
}

TEST_F(GrpcExpertClientTest, CountsWhatItDoes) {
  FakeExpertWorker worker({});
  Connect(Options(worker.address()));
  ASSERT_TRUE(WaitUntilConnected());
  EXPECT_EQ(client_->name(), worker.address());
  EXPECT_EQ(client_->max_call_rows(), 64);
  EXPECT_THAT(
      CallAndWait(client_.get(), MakeExpertCall(0, {1, 2}, 3, kHidden, 1)),
      IsOk());
  EXPECT_EQ(Metric(WithWorker("switchyard_expert_worker_connected")), 1);
  EXPECT_EQ(Metric(WithWorker("switchyard_expert_dispatch_calls_total")), 1);
  EXPECT_EQ(Metric(WithWorker("switchyard_expert_dispatch_rows_total")), 3);
  EXPECT_GT(Metric(WithWorker("switchyard_expert_dispatch_sent_bytes_total")),
            3 * kHidden * 4);
  EXPECT_GT(
      Metric(WithWorker("switchyard_expert_dispatch_received_bytes_total")),
      6 * kHidden * 4);
  for (const char* phase :
       {"encode", "wire_out", "queue", "compute", "wire_back"}) {
    EXPECT_EQ(
        Metric(absl::StrCat("switchyard_expert_dispatch_seconds_count{phase=\"",
                            phase, "\",worker=\"", worker.address(), "\"}")),
        1)
        << phase;
  }
}

TEST_F(GrpcExpertClientTest, NobodyListens) {
  // A port that was free a moment ago.
  int port = 0;
  {
    port = ScriptedExpertServer([](auto*) { return grpc::Status(); }).port();
  }
  Connect(Options(absl::StrCat("127.0.0.1:", port)));
  EXPECT_TRUE(Eventually([this] {
    return absl::StrContains(client_->health().message(), "refused");
  })) << client_->health();
  EXPECT_TRUE(client_->holdings().empty());
  EXPECT_THAT(CallAndWait(client_.get(), OneRow()),
              StatusIs(absl::StatusCode::kUnavailable));
  // Somebody does.
  FakeExpertWorker::Options options;
  options.port = port;
  FakeExpertWorker worker(options);
  ASSERT_TRUE(WaitUntilConnected());
  EXPECT_THAT(CallAndWait(client_.get(), OneRow()), IsOk());
}

TEST_F(GrpcExpertClientTest, AWorkerOfAnotherModelNeverGetsARow) {
  FakeExpertWorker::Options other;
  other.identity.model_fingerprint = "beef";
  auto worker = std::make_unique<FakeExpertWorker>(other);
  const int port = worker->port();
  Connect(Options(worker->address()));
  ASSERT_TRUE(Eventually([this] {
    return client_->health().code() == absl::StatusCode::kFailedPrecondition;
  })) << client_->health();
  EXPECT_THAT(client_->health(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("beef"), HasSubstr("f00d"))));
  EXPECT_TRUE(client_->holdings().empty());
  EXPECT_THAT(CallAndWait(client_.get(), OneRow()),
              StatusIs(absl::StatusCode::kUnavailable));
  // It is replaced by the right one.
  worker = nullptr;
  FakeExpertWorker::Options right;
  right.port = port;
  FakeExpertWorker second(right);
  ASSERT_TRUE(WaitUntilConnected());
  EXPECT_THAT(CallAndWait(client_.get(), OneRow()), IsOk());
}

TEST_F(GrpcExpertClientTest, ASilentServerIsGivenUp) {
  ScriptedExpertServer server([](ScriptedExpertServer::Stream* stream) {
    ReadToTheEnd(stream);
    return grpc::Status();
  });
  GrpcExpertClientOptions options = Options(server.address());
  options.handshake_timeout = absl::Milliseconds(50);
  Connect(options);
  EXPECT_TRUE(Eventually([this] {
    return absl::StrContains(client_->health().message(), "no welcome within");
  })) << client_->health();
}

TEST_F(GrpcExpertClientTest, AWorkerKilledMidCallAndRestartedIsUsedAgain) {
  auto worker = std::make_unique<FakeExpertWorker>(FakeExpertWorker::Options());
  const int port = worker->port();
  Connect(Options(worker->address()));
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(WaitUntilConnected());
    EXPECT_FALSE(client_->holdings().empty());
    const int changes = changes_;
    worker->engine().Hold();
    std::vector<ReplyFuture> calls;
    for (int i = 0; i < 10; ++i)
      calls.push_back(StartCall(client_.get(), OneRow()));
    ASSERT_TRUE(worker->engine().WaitUntilHeld(Soon()));
    worker->Kill();
    for (ReplyFuture& call : calls) {
      EXPECT_THAT(Await(call), StatusIs(absl::StatusCode::kUnavailable));
    }
    EXPECT_TRUE(client_->holdings().empty());
    EXPECT_TRUE(Eventually([&] { return changes_ > changes; }));
    worker = nullptr;
    FakeExpertWorker::Options options;
    options.port = port;
    worker = std::make_unique<FakeExpertWorker>(options);
    ASSERT_TRUE(WaitUntilConnected());
    const TestCall call = OneRow();
    auto reply = CallAndWait(client_.get(), call);
    ASSERT_THAT(reply, IsOk());
    EXPECT_EQ(Outputs(*reply), FakeOutputs(call));
  }
  EXPECT_EQ(Metric(WithWorker("switchyard_expert_worker_reconnects_total")), 3);
}

TEST_F(GrpcExpertClientTest, DeadlinesAreKeptWhateverTheWorkerDoes) {
  Mutex mutex;
  CondVar changed;
  bool answer = false;
  ScriptedExpertServer server([&](ScriptedExpertServer::Stream* stream) {
    if (!Greet(stream)) return grpc::Status();
    v1::ExpertRequest request;
    if (!stream->Read(&request)) return grpc::Status();
    EXPECT_GT(request.compute().timeout_micros(), 0);
    {
      MutexLock lock(&mutex);
      while (!answer) changed.WaitUntil(&mutex, Soon());
    }
    do {  // late, then in time
      stream->Write(ZeroResult(request.compute()));
    } while (stream->Read(&request));
    return grpc::Status();
  });
  Connect(Options(server.address()));
  ASSERT_TRUE(WaitUntilConnected());
  TestCall call = OneRow();
  call.deadline = absl::Now() + absl::Milliseconds(30);
  EXPECT_THAT(CallAndWait(client_.get(), call),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_GE(absl::Now(), call.deadline);
  {
    MutexLock lock(&mutex);
    answer = true;
    changed.SignalAll();
  }
  EXPECT_THAT(CallAndWait(client_.get(), OneRow()), IsOk());
  EXPECT_EQ(
      Metric(WithWorker("switchyard_expert_dispatch_unmatched_replies_total")),
      1);
}

TEST_F(GrpcExpertClientTest, RepliesMayComeInAnyOrder) {
  ScriptedExpertServer server([&](ScriptedExpertServer::Stream* stream) {
    if (!Greet(stream)) return grpc::Status();
    std::vector<v1::ExpertReply> replies;
    v1::ExpertRequest request;
    for (int i = 0; i < 3 && stream->Read(&request); ++i) {
      v1::ExpertReply reply = ZeroResult(request.compute());
      // Says which call it answers: the first float is the row's.
      reply.mutable_result()->mutable_outputs()->replace(
          0, 4, request.compute().activations().substr(0, 4));
      replies.push_back(reply);
    }
    v1::ExpertReply unknown;
    unknown.mutable_result()->set_sequence(424242);
    stream->Write(unknown);
    for (auto it = replies.rbegin(); it != replies.rend(); ++it) {
      stream->Write(*it);
    }
    ReadToTheEnd(stream);
    return grpc::Status();
  });
  Connect(Options(server.address()));
  ASSERT_TRUE(WaitUntilConnected());
  std::vector<ReplyFuture> calls;
  for (int i = 0; i < 3; ++i) {
    calls.push_back(
        StartCall(client_.get(), OneRow(static_cast<float>(10 + i))));
  }
  for (int i = 0; i < 3; ++i) {
    auto reply = Await(calls[i]);
    ASSERT_THAT(reply, IsOk());
    EXPECT_EQ(Outputs(*reply)[0], static_cast<float>(10 + i));
  }
  EXPECT_EQ(
      Metric(WithWorker("switchyard_expert_dispatch_unmatched_replies_total")),
      1);
}

TEST_F(GrpcExpertClientTest, ErrorsOfTheWorkerAreTheCalls) {
  ScriptedExpertServer server([&](ScriptedExpertServer::Stream* stream) {
    if (!Greet(stream)) return grpc::Status();
    v1::ExpertRequest request;
    for (const uint32_t code : {5U, 8U, 4U, 4000U}) {
      if (!stream->Read(&request)) break;
      v1::ExpertReply reply;
      reply.mutable_result()->set_sequence(request.compute().sequence());
      reply.mutable_result()->set_code(code);
      reply.mutable_result()->set_message("because");
      stream->Write(reply);
    }
    ReadToTheEnd(stream);
    return grpc::Status();
  });
  Connect(Options(server.address()));
  ASSERT_TRUE(WaitUntilConnected());
  for (const absl::StatusCode code :
       {absl::StatusCode::kNotFound, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kUnknown}) {
    EXPECT_THAT(CallAndWait(client_.get(), OneRow()),
                StatusIs(code, HasSubstr("because")));
  }
}

struct BadReply {
  const char* name;
  void (*make)(const v1::Compute&, v1::ExpertReply*);
  const char* text;
};
class BadReplyTest : public GrpcExpertClientTest,
                     public ::testing::WithParamInterface<BadReply> {};

TEST_P(BadReplyTest, EndsTheStreamAndFailsItsCalls) {
  ScriptedExpertServer server([](ScriptedExpertServer::Stream* stream) {
    v1::ExpertRequest request;
    if (!Greet(stream) || !stream->Read(&request)) return grpc::Status();
    v1::ExpertReply reply;
    GetParam().make(request.compute(), &reply);
    stream->Write(reply);
    ReadToTheEnd(stream);
    return grpc::Status();
  });
  GrpcExpertClientOptions options = Options(server.address());
  options.refused_backoff = absl::Hours(1);
  Connect(options);
  ASSERT_TRUE(WaitUntilConnected());
  EXPECT_THAT(CallAndWait(client_.get(), OneRow()),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(client_->holdings().empty());
  EXPECT_THAT(client_->health().message(), HasSubstr(GetParam().text));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadReplyTest,
    ::testing::Values(
        BadReply{"ShortOutputs",
                 [](const v1::Compute& c, v1::ExpertReply* r) {
                   *r = ZeroResult(c);
                   r->mutable_result()->mutable_outputs()->pop_back();
                 },
                 "31 bytes of outputs, but 1 rows of 8 floats need 32"},
        BadReply{"NoOutputs",
                 [](const v1::Compute& c, v1::ExpertReply* r) {
                   r->mutable_result()->set_sequence(c.sequence());
                 },
                 "0 bytes of outputs"},
        BadReply{
            "SecondWelcome",
            [](const v1::Compute&, v1::ExpertReply* r) { *r = GoodWelcome(); },
            "a second welcome"},
        BadReply{"LongHoldings",
                 [](const v1::Compute&, v1::ExpertReply* r) {
                   r->mutable_holdings()->set_holdings(std::string(7, '\0'));
                 },
                 "7"},
        BadReply{"NoKind", [](const v1::Compute&, v1::ExpertReply*) {},
                 "no known kind"}),
    [](const auto& info) { return info.param.name; });

// Sends bytes that are no message.
class GarbageReactor final
    : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  GarbageReactor() { StartRead(&in_); }
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status());
      return;
    }
    const grpc::Slice slice(std::string(11, '\xff'));
    out_ = grpc::ByteBuffer(&slice, 1);
    StartWrite(&out_);
  }
  void OnWriteDone(bool ok) override { StartRead(&in_); }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer in_;
  grpc::ByteBuffer out_;
};
class GarbageService final
    : public v1::Expert::WithRawCallbackMethod_Connect<v1::Expert::Service> {
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Connect(
      grpc::CallbackServerContext* context) override {
    return new GarbageReactor();
  }
};

TEST_F(GrpcExpertClientTest, GarbageIsNotAMessage) {
  GarbageService service;
  grpc::Service* const services[] = {&service};
  auto server = rpc::Server::Start("127.0.0.1", 0, services);
  ASSERT_THAT(server, IsOk());
  GrpcExpertClientOptions options =
      Options(absl::StrCat("127.0.0.1:", (*server)->port()));
  Connect(options);
  EXPECT_TRUE(Eventually([this] {
    return absl::StrContains(client_->health().message(),
                             "not an ExpertReply message");
  })) << client_->health();
  client_ = nullptr;
  (*server)->Shutdown(absl::ZeroDuration());
}

// The worker answers what is beyond its limit with RESOURCE_EXHAUSTED.
TEST_F(GrpcExpertClientTest, TheWorkersLimitOfRowsIsKept) {
  FakeExpertWorker::Options worker_options;
  worker_options.identity.max_rows_in_flight = 4;
  FakeExpertWorker worker(worker_options);
  GrpcExpertClientOptions options = Options(worker.address());
  options.max_queued_rows = 12;
  Connect(options);
  ASSERT_TRUE(WaitUntilConnected());
  EXPECT_EQ(client_->max_call_rows(), 4);
  EXPECT_THAT(CallAndWait(client_.get(), MakeExpertCall(0, {1}, 5, kHidden, 1)),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("takes 4 at a time")));
  worker.engine().Hold();
  std::vector<ReplyFuture> calls;
  for (int i = 0; i < 5; ++i) {
    calls.push_back(
        StartCall(client_.get(), MakeExpertCall(0, {1}, 2, kHidden, 1)));
  }
  // One that cannot be sent in time ends at its deadline all the same.
  TestCall hasty = MakeExpertCall(0, {1}, 2, kHidden, 1);
  hasty.deadline = absl::Now() + absl::Milliseconds(50);
  ReplyFuture hasty_reply = StartCall(client_.get(), hasty);
  // All twelve rows are waiting or in flight.
  EXPECT_THAT(CallAndWait(client_.get(), OneRow()),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("12 of at most 12 rows")));
  ASSERT_TRUE(worker.engine().WaitUntilHeld(Soon()));
  // Meanwhile what must not come would have come.
  EXPECT_THAT(Await(hasty_reply), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                           HasSubstr("no room")));
  worker.engine().Release();
  for (ReplyFuture& call : calls) EXPECT_THAT(Await(call), IsOk());
}

TEST_F(GrpcExpertClientTest, HoldingsMayChange) {
  ScriptedExpertServer server([&](ScriptedExpertServer::Stream* stream) {
    v1::ExpertRequest request;
    if (!Greet(stream) || !stream->Read(&request)) return grpc::Status();
    v1::ExpertReply update;
    update.mutable_holdings()->set_holdings(std::string("\x01\0\0\0\0\0", 6));
    stream->Write(update);
    stream->Write(ZeroResult(request.compute()));
    ReadToTheEnd(stream);
    return grpc::Status();
  });
  Connect(Options(server.address()));
  ASSERT_TRUE(WaitUntilConnected());
  EXPECT_EQ(client_->holdings().size(), 48);
  const int changes = changes_;
  EXPECT_THAT(CallAndWait(client_.get(), OneRow()), IsOk());
  EXPECT_EQ(client_->holdings().size(), 1);
  EXPECT_TRUE(client_->holdings().Contains(0, 0));
  EXPECT_TRUE(Eventually([&] { return changes_ > changes; }));
  EXPECT_THAT(client_->health(), IsOk());
}

TEST_F(GrpcExpertClientTest, ADrainingWorkerIsLeft) {
  FakeExpertWorker worker({});
  Connect(Options(worker.address()));
  ASSERT_TRUE(WaitUntilConnected());
  worker.service().Drain(Soon());
  EXPECT_TRUE(Eventually([this] {
    return absl::StrContains(client_->health().message(), "draining");
  })) << client_->health();
  EXPECT_TRUE(client_->holdings().empty());
}

TEST_F(GrpcExpertClientTest, DestructionAnswersWhatIsInFlight) {
  FakeExpertWorker worker({});
  Connect(Options(worker.address()));
  ASSERT_TRUE(WaitUntilConnected());
  worker.engine().Hold();
  std::vector<ReplyFuture> calls;
  for (int i = 0; i < 10; ++i)
    calls.push_back(StartCall(client_.get(), OneRow()));
  client_ = nullptr;
  for (ReplyFuture& call : calls) {
    EXPECT_THAT(Await(call), StatusIs(absl::StatusCode::kUnavailable));
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
