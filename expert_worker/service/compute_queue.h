// Requests of all streams, computed one batch at a time.
//
// Above: expert_connection.h submits. Below: experts/expert_engine.h.
// Not here: gRPC, messages.

#ifndef SWITCHYARD_EXPERT_WORKER_SERVICE_COMPUTE_QUEUE_H_
#define SWITCHYARD_EXPERT_WORKER_SERVICE_COMPUTE_QUEUE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/buffer_pool.h"
#include "base/mutex.h"
#include "expert_worker/service/expert_codec.h"
#include "expert_worker/service/expert_metrics.h"
#include "experts/expert_engine.h"

namespace switchyard::expert_worker {

struct ComputeOutcome {
  // DEADLINE_EXCEEDED: it waited longer than its timeout. UNAVAILABLE: the
  // queue was closed. CANCELLED: nobody waits for it.
  absl::Status status;
  PooledBuffer outputs;  // floats [num_outputs, H]; empty if not OK
  ComputeTimes times;
};

struct ComputeJob {
  ComputeRequest request;
  // True once nobody waits for the outcome: it is then not computed.
  std::shared_ptr<const std::atomic<bool>> abandoned;
  absl::Time received = absl::Now();  // when the request came to this process
  // Called once, on a thread in RunPending or Close, if Submit returned OK.
  // Must not block.
  absl::AnyInvocable<void(ComputeOutcome) &&> done;
};

// First come, first served, except that requests for the layer at the head of
// the queue join its batch: an expert's weights are then read once for all of
// them. A row's output does not depend on its company
// (experts/expert_engine.h).
//
// Has no thread of its own: who submits calls RunPending afterwards, and so
// computes what it has just read from the network, without waking anybody.
// Thread-safe.
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
    std::shared_ptr<BufferPool> buffers =
        nullptr;                       // for outputs and merged rows
    ExpertMetrics* metrics = nullptr;  // not owned; outlives this
  };

  explicit ComputeQueue(const Options& options);
  // Close().
  ~ComputeQueue();

  // NOT_FOUND: an expert that is not held (names them). RESOURCE_EXHAUSTED:
  // full. UNAVAILABLE: closed. Then `done` is not called.
  absl::Status Submit(ComputeJob job) ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether a request that waits needs the expert, or one of its layer is being
  // computed.
  bool Uses(int layer, int expert) ABSL_LOCKS_EXCLUDED(mutex_);

  // Whether anything waits to be computed.
  bool HasPending() ABSL_LOCKS_EXCLUDED(mutex_);

  // Computes until nothing waits. Returns at once if another thread is doing
  // that: it will see what was submitted before this call.
  void RunPending() ABSL_LOCKS_EXCLUDED(mutex_);

  // What waits is answered with UNAVAILABLE; what is being computed is
  // finished before this returns. Idempotent.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    ComputeJob job;
    int64_t bytes;
  };

  // Requests that share a batch; none if nothing waits.
  std::vector<Entry> TakeBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ComputeBatch(std::vector<Entry> batch);
  // Answers those that need no arithmetic; the others remain.
  static void DropStale(std::vector<Entry>* batch, absl::Time now);
  absl::Status ComputeOne(const ComputeRequest& request, PooledBuffer* outputs);
  absl::Status ComputeMerged(const std::vector<Entry>& batch,
                             std::vector<PooledBuffer>* outputs);
  ActivationRows MergeRows(const std::vector<Entry>& batch, int64_t num_rows);
  size_t OutputBytes(const ComputeRequest& request) const;
  absl::Status CheckHeld(const ComputeRequest& request) const;

  const Options options_;
  const std::shared_ptr<BufferPool> buffers_;

  Mutex mutex_;
  CondVar rested_;
  bool computing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // waiting and being computed
  // Of the batch that is being computed; -1: none is.
  int computing_layer_ ABSL_GUARDED_BY(mutex_) = -1;
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_SERVICE_COMPUTE_QUEUE_H_
