#include "attention_worker/core/engine.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_model_runner.h"
#include "tests/testing/matchers.h"
#include "tests/testing/recording_sink.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeModelRunner;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::RecordingSink;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TokenRecord;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int64_t kVocab = 50;

GenerationRequest Request(const std::string& id, int64_t prompt_tokens,
                          int64_t max_tokens) {
  GenerationRequest request;
  request.id = id;
  for (int64_t i = 0; i < prompt_tokens; ++i) {
    request.prompt_ids.push_back(static_cast<int32_t>((i * 7) % kVocab));
  }
  request.max_tokens = max_tokens;
  return request;
}

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() {
    options_.runner = &runner_;
    options_.vocab_size = kVocab;
    options_.max_model_len = 500;
    options_.max_running_requests = 4;
    options_.max_queued_requests = 3;
    options_.chunked_prefill_size = 16;
    options_.state_memory_bytes = 1 << 20;
  }

  void Start() {
    auto engine = Engine::Create(options_);
    ASSERT_THAT(engine, IsOk());
    engine_ = *std::move(engine);
  }
  absl::Status TrySubmit(GenerationRequest request,
                         std::shared_ptr<TokenRecord> record) {
    return engine_->Submit(std::move(request),
                           std::make_unique<RecordingSink>(std::move(record)));
  }
  std::shared_ptr<TokenRecord> Submit(GenerationRequest request) {
    auto record = std::make_shared<TokenRecord>();
    EXPECT_THAT(TrySubmit(std::move(request), record), IsOk());
    return record;
  }

  FakeModelRunner runner_{kVocab};
  Engine::Options options_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, Generates) {
  Start();
  auto record = Submit(Request("a", 20, 30));
  ASSERT_TRUE(record->WaitUntilDone());
  EXPECT_THAT(record->status(), IsOk());
  EXPECT_THAT(record->ids(), SizeIs(30));
  EXPECT_EQ(engine_->load().running, 0);
  EXPECT_EQ(engine_->load().state_bytes_budget, 1 << 20);
}

TEST_F(EngineTest, FlushesTheCacheWhenNobodyUsesIt) {
  Start();
  runner_.Hold();
  auto busy = Submit(Request("a", 20, 5));
  ASSERT_TRUE(runner_.WaitUntilHeld());
  EXPECT_THAT(
      engine_->FlushCache(),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("1 requests")));
  runner_.Release();
  ASSERT_TRUE(busy->WaitUntilDone());
  // A conversation that goes on.
  GenerationRequest turn = Request("b", 20, 5);
  for (const int32_t id : busy->ids()) turn.prompt_ids.push_back(id);
  turn.prompt_ids.push_back(1);
  auto warm = Submit(turn);
  ASSERT_TRUE(warm->WaitUntilDone());
  EXPECT_EQ(warm->usage().cached_prompt_tokens, 24);
  EXPECT_THAT(engine_->FlushCache(), IsOk());
  auto cold = Submit(turn);
  ASSERT_TRUE(cold->WaitUntilDone());
  EXPECT_EQ(cold->usage().cached_prompt_tokens, 0);
  EXPECT_EQ(cold->ids(), warm->ids());
}

TEST_F(EngineTest, OptionsAreChecked) {
  const auto text = [&](auto change) {
    Engine::Options options = options_;
    change(&options);
    return Engine::Create(options).status();
  };
  EXPECT_THAT(text([](auto* o) { o->state_memory_bytes = 100; }),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("state_memory_bytes is 100")));
  EXPECT_THAT(text([](auto* o) { o->max_running_requests = 0; }),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("max_running_requests is 0")));
  EXPECT_THAT(text([](auto* o) { o->max_model_len = 1; }),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("max_model_len is 1")));
}

TEST_F(EngineTest, StateMemoryThatCannotBeReservedIsAnError) {
  options_.state_memory_bytes = int64_t{1} << 60;  // a process has 2^47
  EXPECT_THAT(Engine::Create(options_),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("cannot reserve address space"),
                             HasSubstr("--state-memory"))));
}

TEST_F(EngineTest, RefusesWhatCanNeverBeServed) {
  Start();
  EXPECT_THAT(
      TrySubmit(Request("a", 500, 1), std::make_shared<TokenRecord>()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("500 tokens")));
  EXPECT_EQ(engine_->load().waiting, 0);
}

TEST_F(EngineTest, RefusesAnIdThatIsInUseUntilItIsDone) {
  Start();
  runner_.Hold();
  auto first = Submit(Request("a", 1, 3));
  EXPECT_THAT(TrySubmit(Request("a", 1, 3), std::make_shared<TokenRecord>()),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("id a")));
  runner_.Release();
  ASSERT_TRUE(first->WaitUntilDone());
  EXPECT_TRUE(Submit(Request("a", 1, 3))->WaitUntilDone());
}

TEST_F(EngineTest, RefusesWhenTheQueueIsFullAndTakesAgainLater) {
  options_.max_running_requests = 1;
  Start();
  runner_.Hold();
  auto running = Submit(Request("running", 1, 2));
  ASSERT_TRUE(runner_.WaitUntilHeld());
  std::vector<std::shared_ptr<TokenRecord>> waiting;
  for (int i = 0; i < 3; ++i) {
    waiting.push_back(Submit(Request(absl::StrCat(i), 1, 2)));
  }
  EXPECT_EQ(engine_->load().running, 1);
  EXPECT_EQ(engine_->load().waiting, 3);
  EXPECT_THAT(
      TrySubmit(Request("x", 1, 2), std::make_shared<TokenRecord>()),
      StatusIs(absl::StatusCode::kResourceExhausted,
               HasSubstr("3 requests wait (the limit is 3) and 1 run")));
  runner_.Release();
  ASSERT_TRUE(waiting[2]->WaitUntilDone());
  EXPECT_TRUE(Submit(Request("x", 1, 2))->WaitUntilDone());
}

TEST_F(EngineTest, RefusesMoreTokensThanTheQueueHolds) {
  options_.max_queued_tokens = 100;
  Start();
  runner_.Hold();
  auto first = Submit(Request("a", 60, 1));
  EXPECT_THAT(TrySubmit(Request("b", 41, 1), std::make_shared<TokenRecord>()),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("60 tokens"), HasSubstr("this one 41"),
                             HasSubstr("the limit is 100"))));
  auto fits = Submit(Request("c", 40, 1));
  runner_.Release();
  EXPECT_TRUE(first->WaitUntilDone());
  EXPECT_TRUE(fits->WaitUntilDone());
}

TEST_F(EngineTest, CancelDuringAStep) {
  Start();
  runner_.Hold();
  auto record = Submit(Request("a", 5, 400));
  ASSERT_TRUE(runner_.WaitUntilHeld());
  engine_->Cancel("a");
  engine_->Cancel("a");
  engine_->Cancel("nobody");
  EXPECT_FALSE(record->done());
  runner_.Release();
  ASSERT_TRUE(record->WaitUntilDone());
  EXPECT_THAT(record->status(),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("cancelled")));
  EXPECT_THAT(record->ids(), SizeIs(1));  // the step in flight still counted
  EXPECT_EQ(engine_->load().state_bytes_used, 0);
}

TEST_F(EngineTest, CancelWhileWaiting) {
  options_.max_running_requests = 1;
  Start();
  runner_.Hold();
  auto running = Submit(Request("running", 1, 300));
  ASSERT_TRUE(runner_.WaitUntilHeld());
  auto waiting = Submit(Request("waiting", 1, 300));
  engine_->Cancel("waiting");
  runner_.Release();
  ASSERT_TRUE(waiting->WaitUntilDone());
  EXPECT_THAT(waiting->status(),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("")));
  EXPECT_THAT(waiting->ids(), SizeIs(0));
  engine_->Cancel("running");
  ASSERT_TRUE(running->WaitUntilDone());
}

TEST_F(EngineTest, ALateCancelDoesNotHitTheNextRequestOfThatId) {
  Start();
  ASSERT_TRUE(Submit(Request("a", 1, 2))->WaitUntilDone());
  engine_->Cancel("a");
  auto second = Submit(Request("a", 1, 20));
  ASSERT_TRUE(second->WaitUntilDone());
  EXPECT_THAT(second->status(), IsOk());
}

TEST_F(EngineTest, StopFailsWhatWaitsAndWhatRuns) {
  options_.max_running_requests = 1;
  Start();
  runner_.Hold();
  auto running = Submit(Request("running", 5, 400));
  ASSERT_TRUE(runner_.WaitUntilHeld());
  auto waiting = Submit(Request("waiting", 5, 400));
  std::thread stopper = StartThread("stopper", [this] { engine_->Stop(); });
  // Stop() has begun when nothing is taken any more; the step is still held.
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!absl::IsUnavailable(
      TrySubmit(Request("waiting", 1, 1), std::make_shared<TokenRecord>()))) {
    ASSERT_LT(absl::Now(), deadline);
    std::this_thread::yield();
  }
  runner_.Release();
  stopper.join();
  for (const auto& record : {running, waiting}) {
    ASSERT_TRUE(record->done());
    EXPECT_THAT(record->status(), StatusIs(absl::StatusCode::kUnavailable,
                                           HasSubstr("stopping")));
  }
  EXPECT_THAT(TrySubmit(Request("late", 1, 1), std::make_shared<TokenRecord>()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("stopping")));
  EXPECT_EQ(engine_->load().state_bytes_used, 0);
  EXPECT_EQ(engine_->load().running, 0);
  EXPECT_EQ(engine_->load().waiting, 0);
  engine_->Stop();
}

TEST_F(EngineTest, TheDestructorStops) {
  Start();
  auto record = Submit(Request("a", 5, 400));
  engine_.reset();
  ASSERT_TRUE(record->done());
}

// A sink that submits the same id again from OnDone, as a retrying caller
// might.
class ResubmittingSink final : public TokenSink {
 public:
  ResubmittingSink(Engine* engine, std::shared_ptr<TokenRecord> record)
      : engine_(engine), record_(std::move(record)) {}
  void OnToken(const GeneratedToken& token) override {}
  void OnDone(const absl::Status& status, FinishReason reason,
              const GenerationUsage& usage) override {
    EXPECT_THAT(engine_->Submit(Request("a", 1, 2),
                                std::make_unique<RecordingSink>(record_)),
                IsOk());
  }

 private:
  Engine* const engine_;
  const std::shared_ptr<TokenRecord> record_;
};

TEST_F(EngineTest, ASinkMaySubmitFromOnDone) {
  Start();
  auto record = std::make_shared<TokenRecord>();
  EXPECT_THAT(
      engine_->Submit(Request("a", 1, 2), std::make_unique<ResubmittingSink>(
                                              engine_.get(), record)),
      IsOk());
  EXPECT_TRUE(record->WaitUntilDone());
}

// Several threads submit, cancel and let finish, with too little memory for all
// and chunks that fail: every request that was taken ends once, and the books
// are even afterwards.
TEST_F(EngineTest, StormOfRequestsLeavesTheBooksBalanced) {
  options_.max_queued_requests = 20;
  options_.state_memory_bytes = runner_.state_shape().Costs().BytesFor(120) * 2;
  options_.max_model_len = 120;
  Start();
  runner_.SetFault([](const SequenceChunk& chunk) {
    return chunk.tokens.back() == 17 && chunk.tokens.size() > 1
               ? absl::DeadlineExceededError("told to fail")
               : absl::OkStatus();
  });
  constexpr int kThreads = 4;
  constexpr int kRequests = 150;
  std::vector<std::shared_ptr<TokenRecord>> taken[kThreads];
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.push_back(StartThread(absl::StrCat("storm-", t), [&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < kRequests; ++i) {
        const std::string id = absl::StrCat(t, "/", i);
        GenerationRequest request =
            Request(id, 1 + random() % 100, 1 + random() % 60);
        request.prompt_ids.back() = static_cast<int32_t>(random() % kVocab);
        request.sampling.seed = random();
        request.sampling.frequency_penalty = (random() % 3) * 0.5;
        request.stop_token_ids = {static_cast<int32_t>(random() % kVocab)};
        auto record = std::make_shared<TokenRecord>();
        const absl::Status status = TrySubmit(std::move(request), record);
        if (!status.ok()) {
          ASSERT_TRUE(absl::IsResourceExhausted(status)) << status;
          // The queue is full: wait for the oldest of this thread's requests.
          for (const auto& earlier : taken[t]) {
            if (!earlier->done()) {
              ASSERT_TRUE(earlier->WaitUntilDone());
              break;
            }
          }
          continue;
        }
        taken[t].push_back(record);
        if (random() % 3 == 0) {
          engine_->Cancel(absl::StrCat(t, "/", random() % (i + 1)));
        }
      }
    }));
  }
  for (std::thread& thread : threads) thread.join();
  int ended_well = 0;
  int cancelled = 0;
  int failed = 0;
  for (const auto& records : taken) {
    for (const auto& record : records) {
      ASSERT_TRUE(record->WaitUntilDone());
      const absl::Status status = record->status();
      ended_well += status.ok();
      cancelled += absl::IsCancelled(status);
      failed += absl::IsDeadlineExceeded(status);
      ASSERT_TRUE(status.ok() || absl::IsCancelled(status) ||
                  absl::IsDeadlineExceeded(status))
          << status;
    }
  }
  EXPECT_GT(ended_well, 20);
  EXPECT_GT(cancelled, 0);
  EXPECT_GT(failed, 0);
  EXPECT_EQ(engine_->load().running, 0);
  EXPECT_EQ(engine_->load().waiting, 0);
  EXPECT_EQ(engine_->load().state_bytes_used, 0);
  engine_->Stop();  // and the engine's own checks
}

TEST_F(EngineTest, StopInAStorm) {
  options_.max_queued_requests = 1000;
  Start();
  std::vector<std::shared_ptr<TokenRecord>> records;
  for (int i = 0; i < 200; ++i) {
    records.push_back(Submit(Request(absl::StrCat(i), 1 + i % 50, 50)));
  }
  engine_->Stop();
  for (const auto& record : records) {
    ASSERT_TRUE(record->done());
    ASSERT_TRUE(record->status().ok() || absl::IsUnavailable(record->status()));
  }
  EXPECT_EQ(engine_->load().state_bytes_used, 0);
}

}  // namespace
}  // namespace switchyard::attention_worker
