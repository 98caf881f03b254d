// A model that serves: its weights once, and engines over them with the
// settings that a measurement compares.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_SERVING_MODEL_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_SERVING_MODEL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/layers/mtp_head.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/state/state_shape.h"
#include "base/compute_pool.h"
#include "experts/expert_engine.h"
#include "metrics/registry.h"
#include "model/checkpoint.h"
#include "model/weight_copies.h"
#include "switchyard/bench/serving/counting_runner.h"

namespace switchyard::attention_worker {
class EngineMetrics;
}

namespace switchyard::bench {

// An engine with threads of its own, what its model counted, and its metrics.
// Thread-safe. Its end checks that every block of state memory came back.
class ServingEngine {
 public:
  ServingEngine(std::unique_ptr<metrics::Registry> registry,
                std::unique_ptr<attention_worker::EngineMetrics> metrics,
                std::unique_ptr<CountingRunner> runner,
                std::unique_ptr<attention_worker::Engine> engine);
  ~ServingEngine();

  attention_worker::Engine* engine() { return engine_.get(); }
  RunnerCounts counts() const { return runner_->counts(); }
  // Of states and snapshots together, as /metrics would say it.
  absl::StatusOr<int64_t> StateBytesHeld();

 private:
  // In the order in which they rest on one another.
  const std::unique_ptr<metrics::Registry> registry_;
  const std::unique_ptr<attention_worker::EngineMetrics> metrics_;
  const std::unique_ptr<CountingRunner> runner_;
  const std::unique_ptr<attention_worker::Engine> engine_;
};

// One thread's.
class ServingModel {
 public:
  struct Options {
    const model::Checkpoint* checkpoint = nullptr;  // not owned; outlives this
    int threads = 1;
    std::vector<int> cpus;  // theirs, one each; empty: any
    model::WeightPlacement weights = model::WeightPlacement::kAuto;
    // What is being done, and how far it is. May be called from other threads.
    std::function<void(const char* doing, int64_t done, int64_t total)>
        progress;
  };
  struct EngineSettings {
    int max_draft_tokens = 0;  // above 0 only with has_mtp()
    bool adaptive_drafts = true;
    bool prefix_caching = true;
    int64_t chunked_prefill_size = 1024;
    int64_t max_running_requests = 64;
    int64_t max_queued_requests = 1024;
    int64_t state_memory_bytes = 0;
  };

  // Loads the experts, those of an MTP head included. Errors are those of
  // ExpertEngine::Create.
  static absl::StatusOr<std::unique_ptr<ServingModel>> Create(Options options);

  // The engine must go before this, and no two of one max_draft_tokens may have
  // requests at a time: they share what steps. Loads the other weights when it
  // first gets so many draft tokens (copies of converted ones each time).
  // Errors are those of ModelRunner, MtpHead and Engine.
  absl::StatusOr<std::unique_ptr<ServingEngine>> NewEngine(
      const EngineSettings& settings);

  const model::Checkpoint& checkpoint() const { return *options_.checkpoint; }
  bool has_mtp() const { return checkpoint().has_mtp(); }
  int64_t vocab_size() const { return checkpoint().config().vocab_size; }
  int64_t context() const {
    return checkpoint().config().max_position_embeddings;
  }
  // States of `sequences` of `tokens` tokens each, and `snapshots` more fixed
  // parts with as many pages as one of them has.
  int64_t StateBytes(int max_draft_tokens, int64_t sequences, int64_t tokens,
                     int64_t snapshots) const;

 private:
  struct Stack {
    std::unique_ptr<attention_worker::ModelRunner> runner;
    std::unique_ptr<attention_worker::MtpHead> head;
  };
  explicit ServingModel(Options options) : options_(std::move(options)) {}
  absl::StatusOr<Stack*> StackFor(int max_draft_tokens);

  const Options options_;
  // In the order in which they rest on one another.
  std::unique_ptr<metrics::Registry> registry_;
  std::unique_ptr<ComputePool> pool_;
  std::unique_ptr<experts::ExpertEngine> experts_;
  std::shared_ptr<attention_worker::ExpertClient> client_;
  std::unique_ptr<attention_worker::ExpertDispatcher> dispatcher_;
  std::map<int, Stack> stacks_;  // by max_draft_tokens
};

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_SERVING_MODEL_H_
