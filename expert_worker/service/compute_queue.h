// Requests of all streams, waiting for one thread that computes.
//
// Above: expert_connection.h submits. Below: experts/expert_engine.h.
// Not here: gRPC, messages.

#ifndef SWITCHYARD_EXPERT_WORKER_SERVICE_COMPUTE_QUEUE_H_
#define SWITCHYARD_EXPERT_WORKER_SERVICE_COMPUTE_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "expert_worker/service/expert_codec.h"
#include "expert_worker/service/expert_metrics.h"
#include "experts/expert_engine.h"

namespace switchyard::expert_worker {

struct ComputeOutcome {
  // DEADLINE_EXCEEDED: it waited longer than its timeout. UNAVAILABLE: the
  // queue was closed. CANCELLED: nobody waits for it.
  absl::Status status;
  std::vector<float> outputs;  // [num_outputs, H]; empty if not OK
  ComputeTimes times;
};

struct ComputeJob {
  ComputeRequest request;
  // True once nobody waits for the outcome: it is then not computed.
  std::shared_ptr<const std::atomic<bool>> abandoned;
  // Called once, on the compute thread, if Submit returned OK. Must not block.
  absl::AnyInvocable<void(ComputeOutcome) &&> done;
};

// First come, first served, except that requests for the layer at the head of
// the queue join its batch: an expert's weights are then read once for all of
// them. A row's output does not depend on its company
// (experts/expert_engine.h). Thread-safe.
class ComputeQueue {
 public:
  struct Options {
    experts::ExpertEngine* engine = nullptr;  // not owned; outlives this
    int64_t hidden_size = 0;                  // H
    // Of activations and outputs of all requests that wait or are computed; one
    // larger request is taken when there is no other.
    int64_t max_bytes = 0;
    // Most outputs of a batch of several requests.
    int64_t max_batch_outputs = 4096;
    ExpertMetrics* metrics = nullptr;  // not owned; outlives this
  };

  // Starts the thread ("expert-compute").
  explicit ComputeQueue(const Options& options);
  // Close().
  ~ComputeQueue();

  // NOT_FOUND: an expert that is not held (names them). RESOURCE_EXHAUSTED:
  // full. UNAVAILABLE: closed. Then `done` is not called.
  absl::Status Submit(ComputeJob job) ABSL_LOCKS_EXCLUDED(mutex_);

  // What waits is answered with UNAVAILABLE; what is being computed is
  // finished. Idempotent; not for several threads at a time.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    ComputeJob job;
    absl::Time arrived;
    int64_t bytes;
  };

  void Loop();
  // Waits for work; empty when closed.
  std::vector<Entry> TakeBatch() ABSL_LOCKS_EXCLUDED(mutex_);
  void ComputeBatch(std::vector<Entry> batch);
  // Answers those that need no arithmetic; the others remain.
  static void DropStale(std::vector<Entry>* batch, absl::Time now);
  absl::Status ComputeOne(const ComputeRequest& request,
                          std::vector<float>* outputs);
  absl::Status ComputeMerged(const std::vector<Entry>& batch,
                             std::vector<std::vector<float>>* outputs);
  absl::Status CheckHeld(const ComputeRequest& request) const;

  const Options options_;
  const model::ExpertSet holdings_;

  Mutex mutex_;
  CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // waiting and being computed

  std::thread thread_;  // last: uses everything above
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_SERVICE_COMPUTE_QUEUE_H_
