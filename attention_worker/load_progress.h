// How far a load has come: for the log, a gauge, and who asks.

#ifndef SWITCHYARD_ATTENTION_WORKER_LOAD_PROGRESS_H_
#define SWITCHYARD_ATTENTION_WORKER_LOAD_PROGRESS_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "metrics/registry.h"

namespace switchyard::attention_worker {

// A load is a sequence of phases, each with its own bytes. One thread loads and
// reports; any thread may ask.
class LoadProgress {
 public:
  // Adds switchyard_loading_progress. `registry` is not owned and outlives
  // this.
  explicit LoadProgress(metrics::Registry* registry);

  // Of all phases whose bytes count; until this is called, a phase's own share
  // stands in the message only.
  void ExpectBytes(int64_t total) { bytes_total_ = total; }
  void BeginPhase(const std::string& what) { phase_ = what; }
  // Bytes of this phase. Logs a line a second.
  void Report(int64_t done, int64_t total) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndPhase(int64_t bytes) { bytes_done_ += bytes; }
  // All is there.
  void Finish() ABSL_LOCKS_EXCLUDED(mutex_);

  // 0 to 1; never falls.
  double share() const ABSL_LOCKS_EXCLUDED(mutex_);
  // "reading layers, 12 of 340 MiB"
  std::string message() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  metrics::Gauge* const gauge_;

  // The loading thread's own.
  std::string phase_;
  int64_t bytes_done_ = 0;   // of earlier phases
  int64_t bytes_total_ = 0;  // of all phases; 0: not known yet
  absl::Time next_line_ = absl::InfinitePast();

  mutable Mutex mutex_;
  std::string message_ ABSL_GUARDED_BY(mutex_) = "opening the checkpoint";
  double share_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LOAD_PROGRESS_H_
