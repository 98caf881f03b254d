#include "attention_worker/service/generation_service.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/generation.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/server.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_model_runner.h"
#include "tests/testing/matchers.h"
#include "tests/testing/watched_engine.h"
#include "tracing/span/span.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeModelRunner;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::WatchedEngine;
using ::testing::HasSubstr;

constexpr int64_t kVocab = 50;

// A real engine over the fake model, or none.
class FakeBackend final : public GenerationBackend {
 public:
  absl::StatusOr<Engine*> engine() const override {
    MutexLock lock(&mutex_);
    if (engine_ == nullptr) {
      return absl::UnavailableError("this worker is loading: 42%");
    }
    return engine_;
  }
  WorkerInfo info() const override {
    MutexLock lock(&mutex_);
    WorkerInfo info;
    info.state = engine_ == nullptr ? WorkerState::kLoading
                                    : WorkerState::kWaitingExperts;
    info.instance_id = "instance";
    info.model_fingerprint = "abc";
    info.version = "1.2.3";
    info.vocab_size = kVocab;
    info.max_model_len = 20000;
    info.loading_progress = 0.42;
    if (engine_ != nullptr) info.load = engine_->load();
    info.message = "layer 3 is missing";
    return info;
  }
  void SetEngine(Engine* engine) {
    MutexLock lock(&mutex_);
    engine_ = engine;
  }

 private:
  mutable Mutex mutex_;
  Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

// Thread-safe, for what the test reads when the call is over.
class RecordingSpans final : public tracing::SpanSink {
 public:
  void Add(tracing::Span span) override {
    MutexLock lock(&mutex_);
    spans_.push_back(std::move(span));
  }
  std::vector<tracing::Span> spans() const {
    MutexLock lock(&mutex_);
    return spans_;
  }

 private:
  mutable Mutex mutex_;
  std::vector<tracing::Span> spans_ ABSL_GUARDED_BY(mutex_);
};

class GenerationServiceTest : public ::testing::Test {
 protected:
  void Start(GenerationService::Options options = {}) {
    Engine::Options engine_options;
    engine_options.runner = &runner_;
    engine_options.vocab_size = kVocab;
    engine_options.max_model_len = 20000;
    engine_options.max_queued_requests = 2;
    engine_options.max_running_requests = 1;
    engine_options.state_memory_bytes = 1 << 24;
    engine_options.clock = options.clock;
    auto engine = Engine::Create(engine_options);
    ASSERT_THAT(engine, IsOk());
    engine_ = std::make_unique<WatchedEngine>(*std::move(engine));
    backend_.SetEngine(engine_.get());
    options.backend = &backend_;
    service_ = std::make_unique<GenerationService>(options);
    auto server = rpc::Server::Start("127.0.0.1", 0, {service_.get()});
    ASSERT_THAT(server, IsOk());
    server_ = *std::move(server);
    stub_ = v1::Generation::NewStub(
        rpc::NewChannel(absl::StrCat("127.0.0.1:", server_->port())));
  }

  ~GenerationServiceTest() override {
    runner_.Release();
    if (engine_ != nullptr) engine_->Stop();
    if (server_ != nullptr) server_->Shutdown(absl::Seconds(5));
  }

  static v1::GenerateRequest Request(const std::string& id,
                                     uint32_t max_tokens) {
    v1::GenerateRequest request;
    request.set_request_id(id);
    request.add_prompt_ids(3);
    request.add_prompt_ids(4);
    request.set_max_tokens(max_tokens);
    return request;
  }

  struct Outcome {
    std::vector<v1::GenerateReply> replies;
    grpc::Status status;
  };
  Outcome Generate(const v1::GenerateRequest& request,
                   const std::string& traceparent = "") {
    grpc::ClientContext context;
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(30));
    auto reader = stub_->Generate(&context, request);
    Outcome outcome;
    v1::GenerateReply reply;
    while (reader->Read(&reply)) outcome.replies.push_back(reply);
    outcome.status = reader->Finish();
    return outcome;
  }

  testing::FakeClock clock_;  // for tests that do not take the machine's
  FakeModelRunner runner_{kVocab};
  FakeBackend backend_;
  std::unique_ptr<WatchedEngine> engine_;
  std::unique_ptr<GenerationService> service_;
  std::unique_ptr<rpc::Server> server_;
  std::unique_ptr<v1::Generation::Stub> stub_;
  std::list<grpc::ClientContext> contexts_;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateReply>>> readers_;
};

TEST_F(GenerationServiceTest, TracesRequestsThatAreTraced) {
  RecordingSpans spans;
  Start({.spans = &spans});
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-";
  EXPECT_TRUE(Generate(Request("a", 3)).status.ok());
  EXPECT_TRUE(
      Generate(Request("b", 3), trace + "b7ad6b7169203331-00").status.ok());
  EXPECT_TRUE(Generate(Request("c", 3), "nonsense").status.ok());
  EXPECT_TRUE(spans.spans().empty());

  EXPECT_TRUE(
      Generate(Request("d", 3), trace + "b7ad6b7169203331-01").status.ok());
  const std::vector<tracing::Span> found = spans.spans();
  ASSERT_FALSE(found.empty());
  const tracing::Span& whole = found.back();
  EXPECT_EQ(whole.context.trace_low, 0x8448eb211c80319cu);
  EXPECT_EQ(whole.parent_span, 0xb7ad6b7169203331u);
  EXPECT_EQ(whole.error, "");
  EXPECT_THAT(
      whole.attributes,
      ::testing::Contains(::testing::Pair(
          "gen_ai.usage.output_tokens",
          std::variant<std::string, int64_t, double, bool>(int64_t{3}))));
  for (size_t i = 0; i + 1 < found.size(); ++i) {
    EXPECT_EQ(found[i].parent_span, whole.context.span);
    EXPECT_GE(found[i].start, whole.start);
    EXPECT_LE(found[i].end, whole.end);
  }
}

TEST_F(GenerationServiceTest, TimesOfATraceAreTheClocks) {
  RecordingSpans spans;
  ExpertTrafficMeter experts;
  runner_.SetFault([&experts](const SequenceChunk&) {
    ExpertTraffic call;
    call.calls = 1;
    experts.Add("worker", call);
    return absl::OkStatus();
  });
  Start({.clock = &clock_, .spans = &spans, .experts = &experts});
  EXPECT_TRUE(
      Generate(Request("a", 3),
               "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
          .status.ok());
  int of_experts = 0;
  for (const tracing::Span& span : spans.spans()) {
    EXPECT_EQ(span.start, clock_.Now()) << span.name;
    EXPECT_EQ(span.end, clock_.Now()) << span.name;
    of_experts += span.kind == tracing::SpanKind::kClient ? 1 : 0;
  }
  EXPECT_EQ(of_experts, 1);
}

TEST_F(GenerationServiceTest, StreamsTokensThenFinished) {
  Start();
  v1::GenerateRequest request = Request("a", 100);
  request.set_want_logprobs(true);
  request.set_num_top_logprobs(3);
  request.set_model_fingerprint("abc");
  const Outcome outcome = Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  ASSERT_EQ(outcome.replies.size(), 101);
  std::vector<int32_t> tokens = {3, 4};
  for (int i = 0; i < 100; ++i) {
    const v1::Token& token = outcome.replies[i].token();
    EXPECT_EQ(token.position(), 2 + i);
    EXPECT_LT(token.logprob(), 0);
    ASSERT_EQ(token.top_logprobs_size(), 3);
    // The first of the best is the greatest logit after what came so far.
    const std::vector<float> logits = runner_.LogitsAfter(tokens);
    EXPECT_EQ(token.top_logprobs(0).id(),
              std::max_element(logits.begin(), logits.end()) - logits.begin());
    tokens.push_back(static_cast<int32_t>(token.id()));
  }
  const v1::Finished& finished = outcome.replies[100].finished();
  EXPECT_EQ(finished.reason(), v1::Finished::LENGTH);
  EXPECT_EQ(finished.prompt_tokens(), 2);
  EXPECT_EQ(finished.output_tokens(), 100);
}

TEST_F(GenerationServiceTest, WhileLoadingUnavailable) {
  Start();
  backend_.SetEngine(nullptr);
  const Outcome outcome = Generate(Request("a", 1));
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(outcome.status.error_message(), HasSubstr("loading: 42%"));
}

TEST_F(GenerationServiceTest, RefusalsKeepTheirCodeAndText) {
  Start();
  EXPECT_EQ(Generate(v1::GenerateRequest()).status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  const Outcome too_long = Generate(Request("a", 0));
  EXPECT_EQ(too_long.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(too_long.status.error_message(), HasSubstr("max_tokens is 0"));
  v1::GenerateRequest other = Request("a", 1);
  other.set_model_fingerprint("xyz");
  EXPECT_EQ(Generate(other).status.error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(GenerationServiceTest, AFullQueueIsResourceExhausted) {
  Start();
  runner_.Hold();
  std::vector<std::thread> clients;
  clients.push_back(StartThread("client", [this] {
    EXPECT_TRUE(Generate(Request("running", 2)).status.ok());
  }));
  ASSERT_TRUE(runner_.WaitUntilHeld());
  for (const char* id : {"waiting-1", "waiting-2"}) {
    grpc::ClientContext* context = &contexts_.emplace_back();
    readers_.push_back(stub_->Generate(context, Request(id, 2)));
  }
  // Their arrival is the event: the engine counts them.
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (engine_->load().waiting < 2) {
    ASSERT_LT(absl::Now(), deadline);
    std::this_thread::yield();
  }
  const Outcome refused = Generate(Request("late", 2));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("2 requests wait"));
  runner_.Release();
  for (auto& reader : readers_) {
    v1::GenerateReply reply;
    while (reader->Read(&reply)) {
    }
    EXPECT_TRUE(reader->Finish().ok());
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(GenerationServiceTest, CancellingTheCallCancelsTheSequence) {
  Start();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Request("a", 19000));
  v1::GenerateReply reply;
  ASSERT_TRUE(reader->Read(&reply));
  context.TryCancel();
  const auto end = engine_->WaitForEnd("a");
  ASSERT_TRUE(end.has_value());
  EXPECT_THAT(*end, StatusIs(absl::StatusCode::kCancelled, HasSubstr("")));
  EXPECT_EQ(engine_->load().state_bytes_used, 0);
  while (reader->Read(&reply)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GenerationServiceTest, CancellingBeforeTheFirstToken) {
  Start();
  runner_.Hold();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Request("a", 19000));
  ASSERT_TRUE(runner_.WaitUntilHeld());
  context.TryCancel();
  v1::GenerateReply reply;
  EXPECT_FALSE(reader->Read(&reply));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  runner_.Release();
  ASSERT_TRUE(engine_->WaitForEnd("a").has_value());
}

TEST_F(GenerationServiceTest, TheCallsDeadlineIsTheRequests) {
  Start();
  runner_.Hold();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(300));
  auto reader = stub_->Generate(&context, Request("a", 19000));
  v1::GenerateReply reply;
  EXPECT_FALSE(reader->Read(&reply));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  runner_.Release();
  const auto end = engine_->WaitForEnd("a");
  ASSERT_TRUE(end.has_value());
  EXPECT_FALSE(end->ok());
}

TEST_F(GenerationServiceTest, NoRequestRunsLongerThanTheWorkerAllows) {
  Start({.max_request_time = absl::Milliseconds(100), .clock = &clock_});
  runner_.SetFault([this](const SequenceChunk&) {
    clock_.Advance(absl::Milliseconds(1));  // what each step takes
    return absl::OkStatus();
  });
  const Outcome outcome = Generate(Request("a", 19000));
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(outcome.status.error_message(), HasSubstr("while it ran"));
  EXPECT_GT(outcome.replies.size(), 0);  // what came before is not lost
}

TEST_F(GenerationServiceTest, ASlowReaderIsCutOff) {
  Start({.max_pending_replies = 16});
  grpc::ClientContext context;
  v1::GenerateRequest request = Request("a", 19000);
  request.set_want_logprobs(true);
  request.set_num_top_logprobs(20);  // 4 MB in all: more than gRPC's windows
  auto reader = stub_->Generate(&context, request);
  const auto end = engine_->WaitForEnd("a");
  ASSERT_TRUE(end.has_value());
  EXPECT_THAT(*end, StatusIs(absl::StatusCode::kCancelled, HasSubstr("")));
  v1::GenerateReply reply;
  while (reader->Read(&reply)) {
    EXPECT_TRUE(reply.has_token());
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("16 replies waited"));
}

TEST_F(GenerationServiceTest, StoppingEndsStreamsWithUnavailable) {
  Start();
  runner_.Hold();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Request("a", 19000));
  ASSERT_TRUE(runner_.WaitUntilHeld());
  std::thread stopper = StartThread("stopper", [this] { engine_->Stop(); });
  // Stop() has begun when nothing is taken any more; the step is still held.
  while (Generate(Request("a", 1)).status.error_code() !=
         grpc::StatusCode::UNAVAILABLE) {
    std::this_thread::yield();
  }
  runner_.Release();
  v1::GenerateReply reply;
  while (reader->Read(&reply)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  stopper.join();
}

TEST_F(GenerationServiceTest, WorkerInfo) {
  Start();
  grpc::ClientContext context;
  v1::WorkerInfo info;
  ASSERT_TRUE(
      stub_->GetWorkerInfo(&context, v1::GetWorkerInfoRequest(), &info).ok());
  EXPECT_EQ(info.state(), v1::WorkerInfo::WAITING_EXPERTS);
  EXPECT_EQ(info.instance_id(), "instance");
  EXPECT_EQ(info.model_fingerprint(), "abc");
  EXPECT_EQ(info.version(), "1.2.3");
  EXPECT_EQ(info.vocab_size(), kVocab);
  EXPECT_EQ(info.max_model_len(), 20000);
  EXPECT_EQ(info.loading_progress(), 0.42);
  EXPECT_EQ(info.state_bytes_budget(), 1 << 24);
  EXPECT_EQ(info.message(), "layer 3 is missing");
}

// Many calls at once, some cancelled: for ThreadSanitizer.
TEST_F(GenerationServiceTest, ManyClients) {
  Start();
  std::vector<std::thread> clients;
  for (int t = 0; t < 4; ++t) {
    clients.push_back(StartThread("client", [this, t] {
      for (int i = 0; i < 20; ++i) {
        grpc::ClientContext context;
        auto reader =
            stub_->Generate(&context, Request(absl::StrCat(t, "/", i), 30));
        v1::GenerateReply reply;
        int replies = 0;
        while (reader->Read(&reply)) {
          if (++replies == i) context.TryCancel();
        }
        reader->Finish();
      }
    }));
  }
  for (std::thread& client : clients) client.join();
  engine_->Stop();
  EXPECT_EQ(engine_->load().state_bytes_used, 0);
}

}  // namespace
}  // namespace switchyard::attention_worker
