// One request of a benchmark: what it was told, and when.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_STREAM_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_STREAM_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attention_worker/core/engine.h"
#include "base/mutex.h"

namespace switchyard::bench {

// The longest that a benchmark's request may take. Then it fails; nothing
// waits for ever.
inline constexpr absl::Duration kStreamDeadline = absl::Minutes(15);

struct StreamResult {
  std::vector<int32_t> ids;
  absl::Time submitted;
  std::vector<absl::Time> times;  // of `ids`, as they came
  attention_worker::GenerationUsage usage;

  // REQUIRES: a token came.
  absl::Duration TimeToFirstToken() const { return times.front() - submitted; }
};

// Submit() to Wait(). Thread-safe.
class Stream {
 public:
  // Errors are the engine's.
  static absl::StatusOr<std::shared_ptr<Stream>> Submit(
      attention_worker::Engine* engine,
      attention_worker::GenerationRequest request);

  // Until so many tokens came, or the request ended.
  void WaitForTokens(int64_t tokens) const ABSL_LOCKS_EXCLUDED(mutex_);
  // How it ended; the engine's error if not well.
  absl::StatusOr<StreamResult> Wait() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What came until now.
  StreamResult SoFar() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Sink;
  Stream() = default;

  mutable Mutex mutex_;
  mutable CondVar changed_;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  StreamResult result_ ABSL_GUARDED_BY(mutex_);
};

// Waits for all, the first error counts. All are waited for in any case.
absl::StatusOr<std::vector<StreamResult>> WaitForAll(
    const std::vector<std::shared_ptr<Stream>>& streams);

// A request as all parts make them: no stop tokens, so that outputs have their
// length, and a deadline.
attention_worker::GenerationRequest NewRequest(std::vector<int32_t> prompt,
                                               int64_t max_tokens);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_STREAM_H_
