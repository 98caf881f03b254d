// Counts what an engine really reads, on the way to the model: what a prefix
// cache saved cannot be believed from its own word.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_COUNTING_RUNNER_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_COUNTING_RUNNER_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/types/span.h"
#include "attention_worker/layers/model_runner.h"
#include "base/mutex.h"

namespace switchyard::bench {

struct RunnerCounts {
  int64_t steps = 0;
  int64_t chunks = 0;      // sequences of all steps
  int64_t rows = 0;        // tokens read, without drafted ones
  int64_t draft_rows = 0;  // drafted tokens read
};

inline RunnerCounts operator-(const RunnerCounts& a, const RunnerCounts& b) {
  return {.steps = a.steps - b.steps,
          .chunks = a.chunks - b.chunks,
          .rows = a.rows - b.rows,
          .draft_rows = a.draft_rows - b.draft_rows};
}

// Steps as the runner behind it; counts() may be called from any thread.
class CountingRunner final : public attention_worker::ModelRunner {
 public:
  // `behind` is not owned, and outlives this.
  explicit CountingRunner(attention_worker::ModelRunner* behind)
      : behind_(behind) {}

  // Of the steps that have ended.
  RunnerCounts counts() const ABSL_LOCKS_EXCLUDED(mutex_);

  std::vector<attention_worker::ChunkResult> Step(
      absl::Span<const attention_worker::SequenceChunk> chunks) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<float> LastLogits(
      attention_worker::SequenceState* state) override {
    return behind_->LastLogits(state);
  }
  void Settle(
      absl::Span<attention_worker::SequenceState* const> states) override {
    behind_->Settle(states);
  }
  const attention_worker::StateShape& state_shape() const override {
    return behind_->state_shape();
  }
  SharedWeights shared_weights() const override {
    return behind_->shared_weights();
  }

 private:
  attention_worker::ModelRunner* const behind_;
  mutable Mutex mutex_;
  RunnerCounts counts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_COUNTING_RUNNER_H_
