// A prompt of 200,000 tokens through the engine: memory, progress, cancelling
// on the way, and what is too long. The model is a fake, whose pages and states
// are real: attention over so many tokens takes minutes.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attention_worker/core/engine.h"
#include "attention_worker/core/engine_metrics.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
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
constexpr int64_t kPrompt = 200'000;
constexpr int64_t kChunk = 1024;
constexpr int64_t kChunks = (kPrompt + kChunk - 1) / kChunk;
constexpr int64_t kOutput = 20;

class LongContextTest : public ::testing::Test {
 protected:
  LongContextTest() {
    options_.runner = &runner_;
    options_.vocab_size = kVocab;
    options_.max_model_len = 262'144;
    options_.chunked_prefill_size = kChunk;
    // One such sequence, and a copy of its fixed part for the prefix cache.
    const StateCosts costs = runner_.state_shape().Costs();
    options_.state_memory_bytes =
        costs.BytesFor(kPrompt + kOutput) + costs.fixed_bytes;
    options_.metrics = &metrics_;
  }

  void Start() {
    auto engine = Engine::Create(options_);
    ASSERT_THAT(engine, IsOk());
    engine_ = *std::move(engine);
  }
  static GenerationRequest Request() {
    GenerationRequest request;
    request.id = "long";
    for (int64_t i = 0; i < kPrompt; ++i) {
      request.prompt_ids.push_back(static_cast<int32_t>(i * i % 47 % kVocab));
    }
    request.max_tokens = kOutput;
    return request;
  }
  absl::Status Submit(std::shared_ptr<TokenRecord> record) {
    return engine_->Submit(Request(),
                           std::make_unique<RecordingSink>(std::move(record)));
  }
  double PromptTokensComputed() {
    return registry_
        ->AddCounter("vllm:prompt_tokens_total", "Prompt tokens computed.",
                     {{"model_name", "fake"}, {"engine", "0"}})
        ->value();
  }

  FakeModelRunner runner_{kVocab};
  std::unique_ptr<metrics::Registry> registry_ = metrics::Registry::Create();
  EngineMetrics metrics_{registry_.get(), "fake", 262'144};
  Engine::Options options_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(LongContextTest, IsReadInChunksWithinTheBudget) {
  // Before each step the counter says how far the prompt has been read.
  std::vector<double> progress;
  std::vector<int64_t> used;
  runner_.SetFault([&](const SequenceChunk&) {
    progress.push_back(PromptTokensComputed());
    used.push_back(engine_->load().state_bytes_used);
    return absl::OkStatus();
  });
  Start();
  const auto record = std::make_shared<TokenRecord>();
  ASSERT_THAT(Submit(record), IsOk());
  ASSERT_TRUE(record->WaitUntilDone());
  EXPECT_THAT(record->status(), IsOk());
  EXPECT_THAT(record->ids(), SizeIs(kOutput));
  EXPECT_EQ(record->usage().prompt_tokens, kPrompt);
  ASSERT_EQ(static_cast<int64_t>(progress.size()), kChunks + kOutput - 1);
  for (int64_t step = 0; step < kChunks; ++step) {
    EXPECT_EQ(progress[step], static_cast<double>(step * kChunk));
    EXPECT_LE(used[step], options_.state_memory_bytes);
  }
  EXPECT_EQ(PromptTokensComputed(), kPrompt);
  for (const std::vector<int64_t>& step : runner_.steps()) {
    ASSERT_THAT(step, SizeIs(1));
    EXPECT_LE(step[0], kChunk);
  }
  EXPECT_EQ(engine_->load().state_bytes_used, 0);
}

TEST_F(LongContextTest, EndsWithinOneChunkWhenCancelled) {
  constexpr size_t kCancelledIn = 50;
  runner_.SetFault([this](const SequenceChunk&) {
    if (runner_.steps().size() == kCancelledIn) engine_->Cancel("long");
    return absl::OkStatus();
  });
  Start();
  const auto record = std::make_shared<TokenRecord>();
  ASSERT_THAT(Submit(record), IsOk());
  ASSERT_TRUE(record->WaitUntilDone());
  EXPECT_THAT(record->status(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(record->ids(), SizeIs(0));
  EXPECT_THAT(runner_.steps(), SizeIs(kCancelledIn));
  EXPECT_EQ(engine_->load().running, 0);
  EXPECT_EQ(engine_->load().state_bytes_used, 0);
}

TEST_F(LongContextTest, IsRefusedBeyondTheContext) {
  options_.max_model_len = 131'072;
  Start();
  EXPECT_THAT(Submit(std::make_shared<TokenRecord>()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("the prompt has 200000 tokens"),
                             HasSubstr("context length is 131072 tokens"))));
}

TEST_F(LongContextTest, IsRefusedBeyondTheMemory) {
  options_.state_memory_bytes /= 2;
  Start();
  EXPECT_THAT(Submit(std::make_shared<TokenRecord>()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("raise --state-memory")));
}

}  // namespace
}  // namespace switchyard::attention_worker
