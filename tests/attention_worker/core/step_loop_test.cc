#include "attention_worker/core/step_loop.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "attention_worker/scheduler/decode_first.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_model_runner.h"
#include "tests/testing/matchers.h"
#include "tests/testing/recording_sink.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeClock;
using ::switchyard::testing::FakeModelRunner;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::RecordingSink;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TokenRecord;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int64_t kVocab = 50;

GenerationRequest Request(const std::string& id, std::vector<int32_t> prompt,
                          int64_t max_tokens) {
  GenerationRequest request;
  request.id = id;
  request.prompt_ids = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

// What the fake model says greedily after `prompt`.
std::vector<int32_t> Expected(const FakeModelRunner& runner,
                              std::vector<int32_t> prompt, int64_t n) {
  std::vector<int32_t> output;
  for (int64_t i = 0; i < n; ++i) {
    const std::vector<float> logits = runner.LogitsAfter(prompt);
    output.push_back(static_cast<int32_t>(
        std::max_element(logits.begin(), logits.end()) - logits.begin()));
    prompt.push_back(output.back());
  }
  return output;
}

class StepLoopTest : public ::testing::Test {
 protected:
  StepLoopTest() {
    options_.runner = &runner_;
    options_.pool = &pool_;
    options_.policy = &policy_;
    options_.metrics = &metrics_;
    options_.clock = &clock_;
    options_.limits.vocab_size = kVocab;
    options_.limits.max_model_len = 200;
    options_.limits.state_memory_bytes = 1 << 20;
    options_.limits.state_costs = runner_.state_shape().Costs();
    options_.max_running_requests = 8;
    options_.chunked_prefill_size = 16;
    options_.on_done = [this](const std::string& id) { done_.push_back(id); };
    options_.on_load = [this](const EngineLoad& load) { load_ = load; };
  }

  ~StepLoopTest() override {
    if (loop_ == nullptr) return;
    loop_->FailAll(absl::UnavailableError("test over"));
    loop_.reset();
    EXPECT_EQ(load_.running, 0);
    EXPECT_EQ(load_.waiting, 0);
    EXPECT_EQ(load_.state_bytes_used, 0);
  }

  std::shared_ptr<TokenRecord> Add(const GenerationRequest& request) {
    if (loop_ == nullptr) {
      auto memory = StateMemory::Create(runner_.state_shape(),
                                        options_.limits.state_memory_bytes);
      SY_CHECK(memory.ok());
      memory_ = *std::move(memory);
      options_.memory = memory_.get();
      loop_ = std::make_unique<StepLoop>(options_);
    }
    EXPECT_THAT(CheckRequest(request, options_.limits), IsOk());
    auto record = std::make_shared<TokenRecord>();
    loop_->Add(request, std::make_unique<RecordingSink>(record), clock_.Now());
    return record;
  }
  bool Step(absl::flat_hash_set<std::string> cancelled = {}) {
    return loop_->Step(cancelled);
  }
  void StepUntilEmpty() {
    for (int i = 0; i < 10000 && !loop_->empty(); ++i) Step();
    ASSERT_TRUE(loop_->empty());
  }
  int64_t BytesFor(int64_t tokens) {
    return runner_.state_shape().Costs().BytesFor(tokens);
  }

  FakeClock clock_;
  FakeModelRunner runner_{kVocab};
  DecodeFirst policy_;
  std::unique_ptr<metrics::Registry> registry_ = metrics::Registry::Create();
  EngineMetrics metrics_{registry_.get(), "fake", 200};
  InlinePool pool_;
  StepLoop::Options options_;
  std::unique_ptr<StateMemory> memory_;
  std::unique_ptr<StepLoop> loop_;
  std::vector<std::string> done_;
  EngineLoad load_;
};

TEST_F(StepLoopTest, ReadsThePromptThenDecodes) {
  auto record = Add(Request("a", {1, 2, 3}, 4));
  StepUntilEmpty();
  EXPECT_EQ(record->ids(), Expected(runner_, {1, 2, 3}, 4));
  EXPECT_THAT(record->status(), IsOk());
  EXPECT_EQ(record->reason(), FinishReason::kLength);
  EXPECT_EQ(record->usage().prompt_tokens, 3);
  EXPECT_EQ(record->usage().output_tokens, 4);
  EXPECT_EQ(record->tokens()[0].position, 3);
  EXPECT_EQ(record->tokens()[3].position, 6);
  // The last token is never read.
  EXPECT_THAT(runner_.steps(), ElementsAre(ElementsAre(3), ElementsAre(1),
                                           ElementsAre(1), ElementsAre(1)));
  EXPECT_THAT(done_, ElementsAre("a"));
}

TEST_F(StepLoopTest, PartsOfStepsAreCounted) {
  StepTimer timer;
  options_.timer = &timer;
  Add(Request("a", {1, 2, 3}, 4));
  StepUntilEmpty();
  const auto seconds = [this](const std::string& part) {
    const std::string text = registry_->Expose();
    const std::string name = "part=\"" + part + "\"} ";
    const size_t at = text.find(name);
    return at == std::string::npos ? -1.0
                                   : std::stod(text.substr(at + name.size()));
  };
  EXPECT_GT(seconds("sampling"), 0);
  EXPECT_GT(seconds("other"), 0);  // the fake model names nothing
  EXPECT_EQ(seconds("recurrence"), 0);
}

TEST_F(StepLoopTest, LongPromptsAreReadInChunksAndShareThem) {
  auto a = Add(Request("a", std::vector<int32_t>(40, 7), 2));
  auto b = Add(Request("b", std::vector<int32_t>(20, 9), 2));
  StepUntilEmpty();
  EXPECT_THAT(runner_.steps(), ElementsAre(ElementsAre(8, 8), ElementsAre(8, 8),
                                           ElementsAre(12, 4),
                                           ElementsAre(12, 1), ElementsAre(1)));
  EXPECT_EQ(a->ids(), Expected(runner_, std::vector<int32_t>(40, 7), 2));
  EXPECT_EQ(b->ids(), Expected(runner_, std::vector<int32_t>(20, 9), 2));
}

TEST_F(StepLoopTest, AStopTokenEndsAndIsSent) {
  const std::vector<int32_t> expected = Expected(runner_, {5}, 10);
  GenerationRequest request = Request("a", {5}, 10);
  request.stop_token_ids = {expected[3]};
  auto record = Add(request);
  StepUntilEmpty();
  const size_t first =
      std::find(expected.begin(), expected.end(), expected[3]) -
      expected.begin();
  EXPECT_EQ(record->ids(), std::vector<int32_t>(expected.begin(),
                                                expected.begin() + first + 1));
  EXPECT_EQ(record->reason(), FinishReason::kStop);
}

TEST_F(StepLoopTest, AStopTokenInThePromptDoesNotEnd) {
  GenerationRequest request = Request("a", {5}, 1);
  request.stop_token_ids = {5};
  auto record = Add(request);
  StepUntilEmpty();
  EXPECT_THAT(record->ids(), SizeIs(1));
}

TEST_F(StepLoopTest, TheContextLengthEndsWithLength) {
  for (int64_t left = 1; left <= 8; ++left) {
    const std::vector<int32_t> prompt(200 - left, 3);
    auto record = Add(Request("a", prompt, 100));
    StepUntilEmpty();
    EXPECT_THAT(record->status(), IsOk());
    EXPECT_EQ(record->reason(), FinishReason::kLength);
    EXPECT_EQ(record->ids(), Expected(runner_, prompt, left));
  }
}

TEST_F(StepLoopTest, AReplayGoesOnWhereItStopped) {
  const std::vector<int32_t> expected = Expected(runner_, {5, 6}, 10);
  GenerationRequest request = Request("a", {5, 6}, 10);
  request.resumed_output_ids.assign(expected.begin(), expected.begin() + 4);
  auto record = Add(request);
  StepUntilEmpty();
  EXPECT_EQ(record->ids(),
            std::vector<int32_t>(expected.begin() + 4, expected.end()));
  EXPECT_EQ(record->tokens()[0].position, 6);
  EXPECT_EQ(record->usage().prompt_tokens, 2);
  EXPECT_EQ(record->usage().output_tokens, 10);
}

TEST_F(StepLoopTest, AReplayDrawsTheSameNumbersAndSeesTheSamePenalties) {
  GenerationRequest request = Request("a", {5, 6}, 20);
  request.sampling = {.temperature = 1.5,
                      .presence_penalty = 1.5,
                      .frequency_penalty = 0.7,
                      .repetition_penalty = 1.3,
                      .seed = 77};
  request.want_logprobs = true;
  request.num_top_logprobs = 2;
  auto whole = Add(request);
  StepUntilEmpty();
  for (size_t cut = 1; cut < 20; ++cut) {
    const std::vector<int32_t> ids = whole->ids();
    request.resumed_output_ids.assign(ids.begin(), ids.begin() + cut);
    auto rest = Add(request);
    StepUntilEmpty();
    ASSERT_EQ(rest->ids(), std::vector<int32_t>(ids.begin() + cut, ids.end()));
    for (size_t i = 0; i < 20 - cut; ++i) {
      ASSERT_EQ(rest->tokens()[i].token.logprob,
                whole->tokens()[cut + i].token.logprob);
      ASSERT_EQ(rest->tokens()[i].token.top_logprobs,
                whole->tokens()[cut + i].token.top_logprobs);
    }
  }
}

TEST_F(StepLoopTest, ACompleteReplayEndsAtOnce) {
  GenerationRequest stopped = Request("a", {5}, 10);
  stopped.resumed_output_ids = {1, 2};
  stopped.stop_token_ids = {2};
  GenerationRequest full = Request("b", {5}, 2);
  full.resumed_output_ids = {1, 2};
  auto a = Add(stopped);
  auto b = Add(full);
  StepUntilEmpty();
  EXPECT_EQ(a->reason(), FinishReason::kStop);
  EXPECT_EQ(b->reason(), FinishReason::kLength);
  EXPECT_THAT(a->ids(), IsEmpty());
  EXPECT_EQ(b->usage().output_tokens, 2);
  EXPECT_THAT(runner_.steps(), IsEmpty());
}

TEST_F(StepLoopTest, CancelEndsAtTheNextStepInEveryPhase) {
  options_.max_running_requests = 2;
  auto decoding = Add(Request("decoding", {1}, 100));
  Step();
  auto prefill = Add(Request("prefill", std::vector<int32_t>(100, 1), 100));
  Step();
  auto waiting = Add(Request("waiting", {2}, 100));
  Step();
  EXPECT_EQ(load_.running, 2);
  EXPECT_EQ(load_.waiting, 1);
  Step({"decoding", "prefill", "waiting", "unknown"});
  for (const auto& record : {decoding, prefill, waiting}) {
    ASSERT_TRUE(record->done());
    EXPECT_THAT(record->status(),
                StatusIs(absl::StatusCode::kCancelled, HasSubstr("cancelled")));
  }
  EXPECT_THAT(decoding->ids(), SizeIs(3));
  EXPECT_EQ(load_.state_bytes_used, 0);
  EXPECT_FALSE(Step());
}

TEST_F(StepLoopTest, TheDeadlineEndsWhatRunsAndWhatWaits) {
  options_.max_running_requests = 1;
  GenerationRequest request = Request("a", {1}, 100);
  request.deadline = clock_.Now() + absl::Seconds(10);
  auto running = Add(request);
  request.id = "b";
  auto waiting = Add(request);
  request.id = "c";
  request.deadline = clock_.Now() + absl::Seconds(11);
  auto patient = Add(request);
  Step();
  clock_.Advance(absl::Seconds(10));
  Step();
  EXPECT_THAT(running->status(),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("10s, while it ran, with 1 tokens")));
  EXPECT_THAT(waiting->status(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                          HasSubstr("while it waited")));
  EXPECT_FALSE(patient->done());
}

TEST_F(StepLoopTest, AChunkHasItsRequestsDeadline) {
  GenerationRequest request = Request("a", {1}, 100);
  request.deadline = clock_.Now() + absl::Seconds(10);
  Add(request);
  Add(Request("b", {1}, 100));
  Step();
  EXPECT_THAT(
      runner_.last_deadlines(),
      ElementsAre(clock_.Now() + absl::Seconds(10), absl::InfiniteFuture()));
}

TEST_F(StepLoopTest, AFailedSequenceEndsAlone) {
  runner_.SetFault([](const SequenceChunk& chunk) {
    return chunk.tokens[0] == 13
               ? absl::DeadlineExceededError("no holder of layer 3 expert 4")
               : absl::OkStatus();
  });
  auto good = Add(Request("good", {1, 2}, 6));
  auto bad = Add(Request("bad", {13, 2}, 6));
  StepUntilEmpty();
  EXPECT_THAT(bad->status(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                      HasSubstr("layer 3 expert 4")));
  EXPECT_THAT(bad->ids(), IsEmpty());
  EXPECT_THAT(good->status(), IsOk());
  EXPECT_EQ(good->ids(), Expected(runner_, {1, 2}, 6));
}

TEST_F(StepLoopTest, BatchesGiveTheSameTokensAsOneAlone) {
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 20; ++i) {
    GenerationRequest request =
        Request(std::to_string(i), std::vector<int32_t>(1 + i * 3, i), 5 + i);
    if (i % 2 == 1) {
      request.sampling = {
          .temperature = 1.0, .top_p = 0.9, .seed = uint64_t(i)};
    }
    requests.push_back(request);
  }
  std::vector<std::vector<int32_t>> alone;
  for (const GenerationRequest& request : requests) {
    auto record = Add(request);
    StepUntilEmpty();
    alone.push_back(record->ids());
  }
  std::vector<std::shared_ptr<TokenRecord>> records;
  for (const GenerationRequest& request : requests) {
    records.push_back(Add(request));
    Step();
  }
  StepUntilEmpty();
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(records[i]->ids(), alone[i]) << i;
  }
}

TEST_F(StepLoopTest, WaitsForMemoryThenRuns) {
  options_.limits.state_memory_bytes = BytesFor(30) + BytesFor(5);
  auto large = Add(Request("large", std::vector<int32_t>(30, 1), 2));
  auto small = Add(Request("small", {2, 3}, 3));
  Step();
  EXPECT_EQ(load_.running, 1);
  EXPECT_EQ(load_.waiting, 1);
  EXPECT_EQ(load_.state_bytes_used, BytesFor(30));
  StepUntilEmpty();
  EXPECT_EQ(small->ids(), Expected(runner_, {2, 3}, 3));
  EXPECT_THAT(large->status(), IsOk());
}

TEST_F(StepLoopTest, PreemptedSequencesGoOnWithTheSameTokens) {
  // Both fit at first, with the headroom, but cannot both reach 140 tokens.
  options_.limits.state_memory_bytes = BytesFor(140) + BytesFor(100);
  auto a = Add(Request("a", {1, 2}, 138));
  GenerationRequest sampled = Request("b", {3, 4}, 138);
  sampled.sampling = {.temperature = 1.2, .frequency_penalty = 0.5, .seed = 5};
  auto b = Add(sampled);
  StepUntilEmpty();
  EXPECT_GE(registry_
                ->AddCounter("vllm:num_preemptions_total",
                             "States given back for lack of memory, to be "
                             "computed again.",
                             {{"model_name", "fake"}, {"engine", "0"}})
                ->value(),
            1);
  EXPECT_EQ(a->ids(), Expected(runner_, {1, 2}, 138));
  // The same request where memory is plenty.
  const std::vector<int32_t> squeezed = b->ids();
  loop_.reset();
  memory_.reset();
  options_.limits.state_memory_bytes = 1 << 20;
  sampled.id = "b2";
  auto alone = Add(sampled);
  StepUntilEmpty();
  EXPECT_THAT(squeezed, SizeIs(138));
  EXPECT_EQ(alone->ids(), squeezed);
}

TEST_F(StepLoopTest, ReportsTimes) {
  options_.max_running_requests = 1;
  Add(Request("first", {2}, 2));
  auto record = Add(Request("a", {1}, 3));
  clock_.Advance(absl::Seconds(1));
  Step();
  clock_.Advance(absl::Seconds(1));
  Step();  // the first one ends
  clock_.Advance(absl::Seconds(1));
  Step();  // admitted; the fake computes in no time
  clock_.Advance(absl::Seconds(4));
  Step();
  clock_.Advance(absl::Seconds(4));
  Step();
  ASSERT_TRUE(record->done());
  EXPECT_EQ(record->usage().queue_time, absl::Seconds(3));
  EXPECT_EQ(record->usage().prefill_time, absl::ZeroDuration());
  EXPECT_EQ(record->usage().decode_time, absl::Seconds(8));
}

TEST_F(StepLoopTest, MetricsHaveTheFieldsNames) {
  Add(Request("a", {1, 2, 3}, 4));
  Add(Request("b", {1}, 50));
  StepUntilEmpty();
  auto cancelled = Add(Request("c", {9}, 50));
  Step();
  Step({"c"});
  const std::string text = registry_->Expose();
  for (const char* line :
       {"vllm:num_requests_running{engine=\"0\",model_name=\"fake\"} 0",
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"fake\"} 0",
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"fake\"} 0",
        "sglang:num_running_reqs{model_name=\"fake\"} 0",
        "sglang:num_queue_reqs{model_name=\"fake\"} 0",
        "sglang:token_usage{model_name=\"fake\"} 0",
        "vllm:prompt_tokens_total{engine=\"0\",model_name=\"fake\"} 5",
        "vllm:generation_tokens_total{engine=\"0\",model_name=\"fake\"} 55",
        "sglang:num_requests_total",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"length\","
        "model_name=\"fake\"} 2",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\","
        "model_name=\"fake\"} 1",
        "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name="
        "\"fake\"} 3",
        "vllm:iteration_tokens_total_bucket", "switchyard_engine_step_seconds",
        "vllm:request_queue_time_seconds_count"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
