// Ten thousand requests that come, go on with what came before, are aborted at
// any moment or end: with the engine's own threads, drafts, the prefix cache,
// and too little memory for all.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attention_worker/core/engine.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_model_runner.h"
#include "tests/testing/fake_mtp_head.h"
#include "tests/testing/matchers.h"
#include "tests/testing/recording_sink.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeModelRunner;
using ::switchyard::testing::FakeMtpHead;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::RecordingSink;
using ::switchyard::testing::TokenRecord;

constexpr int64_t kVocab = 12;
constexpr int64_t kDrafts = 3;
constexpr int64_t kLongest = 160;  // tokens of a sequence
constexpr int kThreads = 4;
constexpr int kRequestsEach = 2500;
constexpr size_t kOpenEach = 6;  // requests that a thread leaves open

struct Outcome {
  int ended = 0;
  int aborted = 0;
  int compared = 0;  // outputs, with what the model says
};

// One user of the engine, with a thread of their own.
class Churner {
 public:
  Churner(int number, Engine* engine, const FakeModelRunner* model)
      : number_(number), engine_(engine), model_(*model), random_(number) {}

  void Run() {
    for (int i = 0; i < kRequestsEach; ++i) {
      Submit(i);
      if (open_.size() >= kOpenEach) AwaitOldest();
    }
    while (!open_.empty()) AwaitOldest();
  }

  const Outcome& outcome() const { return outcome_; }

 private:
  struct Open {
    std::string id;
    std::vector<int32_t> prompt;
    std::shared_ptr<TokenRecord> record;
    bool greedy = false;
  };

  int64_t Random(int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to)(random_);
  }

  void Submit(int i) {
    GenerationRequest request;
    request.id = absl::StrCat(number_, "/", i);
    request.max_tokens = Random(1, 10);
    // Half go on where another one ended, as far as there is room.
    if (i % 2 == 0) request.prompt_ids = talk_;
    const int64_t more = Random(1, 30);
    for (int64_t t = 0; t < more; ++t) {
      request.prompt_ids.push_back(static_cast<int32_t>(Random(0, kVocab - 1)));
    }
    if (static_cast<int64_t>(request.prompt_ids.size()) + request.max_tokens >
        kLongest) {
      request.prompt_ids.resize(static_cast<size_t>(Random(1, 20)));
    }
    request.prefix_boundaries = {
        Random(0, static_cast<int64_t>(request.prompt_ids.size()))};
    Open open{.id = request.id,
              .prompt = request.prompt_ids,
              .record = std::make_shared<TokenRecord>(),
              .greedy = Random(0, 1) == 0};
    request.sampling.temperature = open.greedy ? 0.0 : 1.0;
    request.sampling.seed = random_();
    ASSERT_THAT(engine_->Submit(std::move(request),
                                std::make_unique<RecordingSink>(open.record)),
                IsOk());
    open_.push_back(std::move(open));
    if (Random(0, 2) == 0) {
      engine_->Cancel(open_[static_cast<size_t>(Random(
                                0, static_cast<int64_t>(open_.size()) - 1))]
                          .id);
    }
  }

  void AwaitOldest() {
    const Open open = std::move(open_.front());
    open_.pop_front();
    // Some are aborted wherever they are by now.
    if (Random(0, 3) == 0) engine_->Cancel(open.id);
    ASSERT_TRUE(open.record->WaitUntilDone()) << open.id;
    const absl::Status status = open.record->status();
    ASSERT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
    (status.ok() ? outcome_.ended : outcome_.aborted) += 1;
    const std::vector<int32_t> ids = open.record->ids();
    talk_ = open.prompt;
    talk_.insert(talk_.end(), ids.begin(), ids.end());
    if (open.greedy && !ids.empty()) ExpectTheModelsOwn(open.prompt, ids);
  }

  // Whatever was shared, drafted or given back meanwhile.
  void ExpectTheModelsOwn(std::vector<int32_t> tokens,
                          const std::vector<int32_t>& output) {
    for (const int32_t id : output) {
      const std::vector<float> logits = model_.LogitsAfter(tokens);
      const auto best = std::max_element(logits.begin(), logits.end());
      ASSERT_EQ(id, best - logits.begin());
      tokens.push_back(id);
    }
    ++outcome_.compared;
  }

  const int number_;
  Engine* const engine_;
  const FakeModelRunner& model_;
  std::mt19937 random_;
  std::deque<Open> open_;
  std::vector<int32_t> talk_;  // prompt and output of an earlier request
  Outcome outcome_;
};

TEST(EngineChurnTest, EveryPageAndPlaceComesBack) {
  FakeModelRunner runner(kVocab, kDrafts);
  FakeMtpHead head(&runner, [](int64_t position) { return position % 3 == 0; });
  Engine::Options options;
  options.runner = &runner;
  options.mtp_head = &head;
  options.adaptive_drafts = false;
  options.vocab_size = kVocab;
  options.max_model_len = kLongest;
  options.max_running_requests = 8;
  options.max_queued_requests = kThreads * kOpenEach;
  options.chunked_prefill_size = 24;
  // Three of the longest: less than may run.
  options.state_memory_bytes =
      3 * runner.state_shape().Costs().BytesFor(kLongest);
  auto made = Engine::Create(options);
  ASSERT_THAT(made, IsOk());
  std::unique_ptr<Engine> engine = *std::move(made);

  std::vector<std::unique_ptr<Churner>> churners;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    churners.push_back(std::make_unique<Churner>(t, engine.get(), &runner));
    threads.push_back(StartThread(absl::StrCat("churn-", t),
                                  [&c = *churners.back()] { c.Run(); }));
  }
  for (std::thread& thread : threads) thread.join();

  Outcome all;
  for (const auto& churner : churners) {
    all.ended += churner->outcome().ended;
    all.aborted += churner->outcome().aborted;
    all.compared += churner->outcome().compared;
  }
  EXPECT_EQ(all.ended + all.aborted, kThreads * kRequestsEach);
  EXPECT_GT(all.ended, 2000);
  EXPECT_GT(all.aborted, 1000);
  EXPECT_GT(all.compared, 1000);
  const EngineLoad idle = engine->load();
  EXPECT_EQ(idle.running, 0);
  EXPECT_EQ(idle.waiting, 0);
  EXPECT_EQ(idle.state_bytes_used, 0);
  // Pages and fixed parts, those that were kept for others included: the state
  // memory's destructor checks that nobody holds one.
  engine.reset();
}

}  // namespace
}  // namespace switchyard::attention_worker
