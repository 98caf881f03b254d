#include "switchyard/bench/serving/counting_runner.h"

#include <utility>

namespace switchyard::bench {

RunnerCounts CountingRunner::counts() const {
  MutexLock lock(&mutex_);
  return counts_;
}

std::vector<attention_worker::ChunkResult> CountingRunner::Step(
    absl::Span<const attention_worker::SequenceChunk> chunks) {
  std::vector<attention_worker::ChunkResult> results = behind_->Step(chunks);
  MutexLock lock(&mutex_);
  ++counts_.steps;
  for (const attention_worker::SequenceChunk& chunk : chunks) {
    ++counts_.chunks;
    counts_.rows +=
        static_cast<int64_t>(chunk.tokens.size()) - chunk.provisional_tokens;
    counts_.draft_rows += chunk.provisional_tokens;
  }
  return results;
}

}  // namespace switchyard::bench
