// States from one worker to another, over gRPC, with engines whose model gives
// away every token that is lost.

#include "attention_worker/service/session_service.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "rpc/channel.h"
#include "rpc/server.h"
#include "tests/testing/fake_model_runner.h"
#include "tests/testing/matchers.h"
#include "tests/testing/recording_sink.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeModelRunner;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::RecordingSink;
using ::switchyard::testing::TokenRecord;
using ::testing::HasSubstr;
using Tokens = std::vector<int32_t>;

constexpr int64_t kVocab = 50;

// A worker: engine, service, server, and a client's stub.
class Worker final : public GenerationBackend {
 public:
  explicit Worker(int64_t state_bytes = 1 << 24, std::string model = "abc")
      : runner_(kVocab), model_(std::move(model)) {
    Engine::Options options;
    options.runner = &runner_;
    options.vocab_size = kVocab;
    options.max_model_len = kMaxModelLen;
    options.state_memory_bytes = state_bytes;
    auto engine = Engine::Create(options);
    EXPECT_THAT(engine, IsOk());
    engine_ = *std::move(engine);
    service_ = std::make_unique<SessionService>(
        SessionService::Options{.backend = this, .max_transfers = 2});
    auto server = rpc::Server::Start("127.0.0.1", 0, {service_.get()});
    EXPECT_THAT(server, IsOk());
    server_ = *std::move(server);
    stub_ = v1::Session::NewStub(
        rpc::NewChannel(absl::StrCat("127.0.0.1:", server_->port())));
  }
  ~Worker() override {
    runner_.Release();
    engine_->Stop();
    server_->Shutdown(absl::Seconds(5));
  }

  static constexpr int64_t kMaxModelLen = 100'000;
  absl::StatusOr<Engine*> engine() const override {
    if (draining_) return absl::UnavailableError("this worker is draining");
    return engine_.get();
  }
  absl::StatusOr<Engine*> engine_to_leave() const override {
    return engine_.get();
  }
  WorkerInfo info() const override {
    WorkerInfo info;
    info.model_fingerprint = model_;
    info.max_model_len = kMaxModelLen;
    return info;
  }
  void Drain() { draining_ = true; }

  std::shared_ptr<TokenRecord> Start(const std::string& id, Tokens prompt,
                                     int64_t max_tokens,
                                     const std::string& scope = "") {
    GenerationRequest request;
    request.cache_scope = scope;
    request.id = id;
    request.prompt_ids = std::move(prompt);
    request.max_tokens = max_tokens;
    request.sampling.temperature = 0;
    auto record = std::make_shared<TokenRecord>();
    EXPECT_THAT(engine_->Submit(std::move(request),
                                std::make_unique<RecordingSink>(record)),
                IsOk());
    return record;
  }
  // Runs it to its end.
  std::shared_ptr<TokenRecord> Run(const std::string& id, Tokens prompt,
                                   int64_t max_tokens,
                                   const std::string& scope = "") {
    auto record = Start(id, std::move(prompt), max_tokens, scope);
    EXPECT_TRUE(record->WaitUntilDone());
    return record;
  }

  struct Saved {
    grpc::Status status;
    std::string object;
    uint64_t num_tokens = 0;
    uint64_t total_bytes = 0;
  };
  Saved Save(const v1::SaveStateRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
    auto reader = stub_->SaveState(&context, request);
    Saved saved;
    v1::SaveStateReply part;
    while (reader->Read(&part)) {
      EXPECT_LE(part.data().size(), size_t{1} << 20);
      if (saved.object.empty()) {
        saved.num_tokens = part.num_tokens();
        saved.total_bytes = part.total_bytes();
      }
      saved.object += part.data();
    }
    saved.status = reader->Finish();
    return saved;
  }
  Saved Save(const Tokens& tokens) {
    v1::SaveStateRequest request;
    for (const int32_t token : tokens) request.add_token_ids(token);
    return Save(request);
  }

  grpc::Status Load(const std::string& object, v1::LoadStateReply* reply,
                    size_t part_bytes = 4096) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(60)));
    auto writer = stub_->LoadState(&context, reply);
    v1::LoadStateRequest part;
    for (size_t at = 0; at < object.size(); at += part_bytes) {
      part.set_data(object.substr(at, part_bytes));
      if (!writer->Write(part)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }

  FakeModelRunner runner_;
  std::unique_ptr<v1::Session::Stub> stub_;
  std::unique_ptr<Engine> engine_;

 private:
  const std::string model_;
  std::atomic<bool> draining_{false};
  std::unique_ptr<SessionService> service_;
  std::unique_ptr<rpc::Server> server_;
};

Tokens Prompt(int64_t n) {
  Tokens tokens(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    tokens[static_cast<size_t>(i)] = static_cast<int32_t>(i * i % kVocab);
  }
  return tokens;
}

Tokens Ids(const TokenRecord& record) {
  Tokens ids;
  for (const GeneratedToken& token : record.tokens()) {
    ids.push_back(token.token.id);
  }
  return ids;
}

Tokens Join(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(SessionServiceTest, ASessionGoesOnElsewhere) {
  Worker a, b, alone;
  const Tokens prompt = Prompt(20'000);
  const Tokens first = Ids(*a.Run("1", prompt, 30));
  const Tokens turn = Join(Join(prompt, first), {1, 2, 3});

  const auto saved = a.Save(turn);
  ASSERT_TRUE(saved.status.ok()) << saved.status.error_message();
  EXPECT_EQ(saved.num_tokens, prompt.size() + first.size() - 1);
  EXPECT_EQ(saved.total_bytes, saved.object.size());
  EXPECT_GT(saved.object.size(), size_t{1} << 20);  // several parts
  v1::LoadStateReply reply;
  const grpc::Status loaded = b.Load(saved.object, &reply, 1 << 20);
  ASSERT_TRUE(loaded.ok()) << loaded.error_message();
  EXPECT_EQ(reply.num_tokens(), saved.num_tokens);
  EXPECT_FALSE(reply.already_held());

  const auto there = b.Run("2", turn, 30);
  EXPECT_EQ(there->usage().cached_prompt_tokens,
            static_cast<int64_t>(saved.num_tokens));
  EXPECT_EQ(Ids(*there), Ids(*alone.Run("2", turn, 30)));

  // A second time there is nothing to do.
  ASSERT_TRUE(b.Load(saved.object, &reply).ok());
  EXPECT_TRUE(reply.already_held());
}

TEST(SessionServiceTest, AStateKeepsItsScope) {
  Worker a, b;
  const Tokens prompt = Prompt(500);
  a.Run("1", prompt, 2, "mine");
  v1::SaveStateRequest request;
  for (const int32_t token : prompt) request.add_token_ids(token);
  EXPECT_EQ(a.Save(request).status.error_code(), grpc::StatusCode::NOT_FOUND);
  request.set_cache_scope("theirs");
  EXPECT_EQ(a.Save(request).status.error_code(), grpc::StatusCode::NOT_FOUND);
  request.set_cache_scope(std::string(65, 's'));
  EXPECT_EQ(a.Save(request).status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  request.set_cache_scope("mine");
  const auto saved = a.Save(request);
  ASSERT_TRUE(saved.status.ok()) << saved.status.error_message();
  v1::LoadStateReply reply;
  ASSERT_TRUE(b.Load(saved.object, &reply).ok());
  const int64_t all = static_cast<int64_t>(prompt.size());
  EXPECT_EQ(b.Run("1", prompt, 2)->usage().cached_prompt_tokens, 0);
  EXPECT_EQ(b.Run("2", prompt, 2, "theirs")->usage().cached_prompt_tokens, 0);
  EXPECT_EQ(b.Run("3", prompt, 2, "mine")->usage().cached_prompt_tokens, all);

  // That of a running request goes with it.
  auto running = a.Start("run", prompt, 50'000, "mine");
  ASSERT_TRUE(running->WaitForTokens(5));
  v1::SaveStateRequest hand_over;
  hand_over.set_hand_over_request_id("run");
  const auto moved = a.Save(hand_over);
  ASSERT_TRUE(moved.status.ok()) << moved.status.error_message();
  ASSERT_TRUE(running->WaitUntilDone());
  const Tokens known = Join(prompt, Ids(*running));
  ASSERT_TRUE(b.Load(moved.object, &reply).ok());
  // Others have what their own first request left.
  EXPECT_EQ(b.Run("4", known, 2)->usage().cached_prompt_tokens, all + 1);
  EXPECT_EQ(b.Run("5", known, 2, "mine")->usage().cached_prompt_tokens,
            static_cast<int64_t>(known.size()) - 1);
}

TEST(SessionServiceTest, ARunningRequestIsHandedOver) {
  Worker a, b, alone;
  const Tokens prompt = Prompt(500);
  auto running = a.Start("run", prompt, 50'000);
  ASSERT_TRUE(running->WaitForTokens(5));
  a.Drain();
  v1::SaveStateRequest request;
  request.set_hand_over_request_id("run");
  const auto saved = a.Save(request);
  ASSERT_TRUE(saved.status.ok()) << saved.status.error_message();
  ASSERT_TRUE(running->WaitUntilDone());
  EXPECT_TRUE(absl::IsUnavailable(running->status())) << running->status();
  const Tokens so_far = Ids(*running);
  EXPECT_EQ(saved.num_tokens, prompt.size() + so_far.size() - 1);

  v1::LoadStateReply reply;
  ASSERT_TRUE(b.Load(saved.object, &reply).ok());
  const Tokens known = Join(prompt, so_far);
  const auto there = b.Run("run", known, 20);
  EXPECT_EQ(there->usage().cached_prompt_tokens,
            static_cast<int64_t>(known.size()) - 1);
  EXPECT_EQ(Ids(*there), Ids(*alone.Run("run", known, 20)));

  // It does not run any more.
  EXPECT_EQ(a.Save(request).status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST(SessionServiceTest, WhatIsNotKeptIsNotFound) {
  Worker a;
  const auto saved = a.Save(Prompt(10));
  EXPECT_EQ(saved.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(saved.status.error_message(), HasSubstr("10 tokens"));
  EXPECT_EQ(a.Save(v1::SaveStateRequest()).status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  v1::SaveStateRequest other;
  other.add_token_ids(1);
  other.set_model_fingerprint("xyz");
  EXPECT_EQ(a.Save(other).status.error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

TEST(SessionServiceTest, RefusalsSayWhy) {
  Worker a;
  const Tokens prompt = Prompt(5'000);
  a.Run("1", prompt, 2);
  const auto saved = a.Save(prompt);
  ASSERT_TRUE(saved.status.ok()) << saved.status.error_message();
  v1::LoadStateReply reply;

  Worker other_model(1 << 24, "xyz");
  grpc::Status status = other_model.Load(saved.object, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("xyz"));

  Worker drafting(1 << 24, "abc");
  std::string damaged = saved.object;
  damaged[damaged.size() / 2] ^= 1;
  status = drafting.Load(damaged, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  status = drafting.Load(saved.object.substr(0, 100'000), &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_THAT(status.error_message(), HasSubstr("100000"));
  // Nothing of all that is kept.
  EXPECT_EQ(drafting.Save(prompt).status.error_code(),
            grpc::StatusCode::NOT_FOUND);

  Worker small(100'000);
  status = small.Load(saved.object, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("100000"));

  Worker draining;
  draining.Drain();
  EXPECT_EQ(draining.Load(saved.object, &reply).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST(SessionServiceTest, OnlySoManyAtATime) {
  Worker a;
  a.Run("1", Prompt(200), 2);
  constexpr int kCalls = 3;  // one more than may be
  v1::LoadStateReply replies[kCalls];
  grpc::ClientContext contexts[kCalls];
  std::vector<std::unique_ptr<grpc::ClientWriter<v1::LoadStateRequest>>>
      writers;
  for (int i = 0; i < kCalls; ++i) {
    writers.push_back(a.stub_->LoadState(&contexts[i], &replies[i]));
  }
  int refused = -1;
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (refused < 0 && absl::Now() < deadline) {
    for (int i = 0; i < kCalls && refused < 0; ++i) {
      if (!writers[i]->Write(v1::LoadStateRequest())) refused = i;
    }
  }
  ASSERT_GE(refused, 0);
  EXPECT_EQ(writers[refused]->Finish().error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (int i = 0; i < kCalls; ++i) {
    if (i == refused) continue;
    writers[i]->WritesDone();
    EXPECT_EQ(writers[i]->Finish().error_code(), grpc::StatusCode::DATA_LOSS);
  }
  // And their places are free again.
  grpc::Status status;
  do {
    status = a.Save(Prompt(200)).status;
  } while (!status.ok() && absl::Now() < deadline);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

// What comes in gives way to what runs.
TEST(SessionServiceTest, RunningRequestsTakeTheMemoryOfWhatIsComing) {
  Worker a;
  const Tokens prompt = Prompt(5'000);
  a.Run("1", prompt, 2);
  const auto saved = a.Save(prompt);
  ASSERT_TRUE(saved.status.ok());
  // Room for one such state, and little more.
  Worker b(static_cast<int64_t>(saved.object.size()) + 20'000);
  v1::LoadStateReply reply;
  grpc::ClientContext context;
  auto writer = b.stub_->LoadState(&context, &reply);
  v1::LoadStateRequest part;
  part.set_data(saved.object.substr(0, saved.object.size() - 1000));
  ASSERT_TRUE(writer->Write(part));
  const auto running = b.Run("2", prompt, 2);
  EXPECT_THAT(running->status(), IsOk());
  part.set_data(saved.object.substr(saved.object.size() - 1000));
  writer->Write(part);
  writer->WritesDone();
  // Given up, or refused at once if the request was there first.
  const grpc::Status status = writer->Finish();
  EXPECT_TRUE(status.error_code() == grpc::StatusCode::ABORTED ||
              status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED ||
              reply.already_held())
      << status.error_code() << status.error_message();
}

}  // namespace
}  // namespace switchyard::attention_worker
