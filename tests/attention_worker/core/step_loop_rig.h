// A step loop on a fake model whose state gives away every token that was read
// twice, left out, or read into another state; and all that the loop needs.

#ifndef SWITCHYARD_TESTS_ATTENTION_WORKER_CORE_STEP_LOOP_RIG_H_
#define SWITCHYARD_TESTS_ATTENTION_WORKER_CORE_STEP_LOOP_RIG_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attention_worker/core/step_loop.h"
#include "attention_worker/scheduler/decode_first.h"
#include "attention_worker/state/snapshot_store.h"
#include "base/compute_pool.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_model_runner.h"
#include "tests/testing/fake_mtp_head.h"
#include "tests/testing/matchers.h"
#include "tests/testing/recording_sink.h"

namespace switchyard::attention_worker {

using Tokens = std::vector<int32_t>;

// A fixture's second base. One thread.
class StepLoopRig {
 public:
  static constexpr int64_t kVocab = 50;

  struct Options {
    int64_t drafts = 0;  // of the fake MTP head; 0: there is none
    // Whether the draft of a position is wrong; null: never.
    std::function<bool(int64_t position)> wrong_draft = nullptr;
    int64_t max_model_len = 2000;
    int64_t chunked_prefill_size = 256;
  };

  explicit StepLoopRig(Options options)
      : options_(std::move(options)),
        runner_(kVocab, options_.drafts),
        head_(
            &runner_, options_.wrong_draft != nullptr
                          ? options_.wrong_draft
                          : [](int64_t) { return false; }),
        metrics_(registry_.get(), "fake", options_.max_model_len) {}
  ~StepLoopRig() { Stop(); }

  // A new loop, instead of the one there was.
  void Start(int64_t state_bytes = int64_t{64} << 20,
             bool prefix_caching = true) {
    Stop();
    auto memory = StateMemory::Create(runner_.state_shape(), state_bytes);
    ASSERT_THAT(memory, testing::IsOk());
    memory_ = *std::move(memory);
    StepLoop::Options loop;
    loop.runner = &runner_;
    loop.pool = &pool_;
    loop.memory = memory_.get();
    loop.policy = &policy_;
    loop.metrics = &metrics_;
    loop.clock = &clock_;
    loop.limits.vocab_size = kVocab;
    loop.limits.max_model_len = options_.max_model_len;
    loop.limits.state_memory_bytes = state_bytes;
    loop.limits.state_costs = runner_.state_shape().Costs();
    loop.max_running_requests = 8;
    loop.chunked_prefill_size = options_.chunked_prefill_size;
    loop.prefix_caching = prefix_caching;
    loop.store = store_.get();
    loop.mtp_head = options_.drafts > 0 ? &head_ : nullptr;
    loop.adaptive_drafts = false;
    loop.on_done = [](const std::string&) {};
    loop.on_load = [](const EngineLoad&) {};
    loop_ = std::make_unique<StepLoop>(loop);
  }

  // Fails what is left; nothing must be left of it.
  void Stop() {
    if (loop_ == nullptr) return;
    loop_->FailAll(absl::UnavailableError("test over"));
    if (store_ != nullptr) store_->Flush(absl::Now() + absl::Seconds(60));
    loop_.reset();
    EXPECT_EQ(memory_->used_bytes(), 0);
  }

  // A greedy request with an id of its own.
  GenerationRequest Request(Tokens prompt, int64_t max_tokens) {
    GenerationRequest request;
    request.id = std::to_string(next_id_++);
    request.prompt_ids = std::move(prompt);
    request.max_tokens = max_tokens;
    request.sampling.temperature = 0;
    return request;
  }

  std::shared_ptr<testing::TokenRecord> Add(const GenerationRequest& request) {
    if (loop_ == nullptr) Start();
    auto record = std::make_shared<testing::TokenRecord>();
    loop_->Add(request, std::make_unique<testing::RecordingSink>(record),
               clock_.Now());
    return record;
  }

  void StepUntilEmpty() {
    for (int i = 0; i < 100'000 && !loop_->empty(); ++i) loop_->Step({});
    ASSERT_TRUE(loop_->empty());
  }

  // What the fake model says greedily behind `prompt`.
  Tokens Expected(Tokens prompt, int64_t n) const {
    Tokens output;
    for (int64_t i = 0; i < n; ++i) {
      const std::vector<float> logits = runner_.LogitsAfter(prompt);
      output.push_back(static_cast<int32_t>(
          std::max_element(logits.begin(), logits.end()) - logits.begin()));
      prompt.push_back(output.back());
    }
    return output;
  }

 protected:
  const Options options_;
  testing::FakeClock clock_;
  InlinePool pool_;
  testing::FakeModelRunner runner_;
  testing::FakeMtpHead head_;
  DecodeFirst policy_;
  std::unique_ptr<metrics::Registry> registry_ = metrics::Registry::Create();
  EngineMetrics metrics_;
  std::unique_ptr<StateMemory> memory_;
  std::unique_ptr<SnapshotStore> store_;  // null: memory alone
  std::unique_ptr<StepLoop> loop_;
  int next_id_ = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_TESTS_ATTENTION_WORKER_CORE_STEP_LOOP_RIG_H_
