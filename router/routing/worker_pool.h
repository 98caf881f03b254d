// The attention workers that this router knows, and the choice among them.
//
// Above: router/openai chooses a worker for each request, and another one when
// it dies. Below: policy.h decides among those that may be chosen.

#ifndef SWITCHYARD_ROUTER_ROUTING_WORKER_POOL_H_
#define SWITCHYARD_ROUTER_ROUTING_WORKER_POOL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "router/client/attention_client.h"
#include "router/routing/policy.h"

namespace switchyard::router {

class WorkerPool;

// A request's place at a worker: counts as load of that worker until it goes
// out of scope. Movable. Must not outlive the pool.
class WorkerLease {
 public:
  WorkerLease(WorkerLease&& other) noexcept;
  WorkerLease& operator=(WorkerLease&& other) noexcept;
  ~WorkerLease();

  AttentionClient* worker() const { return worker_; }

 private:
  friend class WorkerPool;
  WorkerLease(WorkerPool* pool, size_t index, AttentionClient* worker)
      : pool_(pool), index_(index), worker_(worker) {}
  void Release();

  WorkerPool* pool_;  // null: moved from
  size_t index_;
  AttentionClient* worker_;
};

// Thread-safe.
class WorkerPool {
 public:
  // `workers` (at least one) and `policy` are not owned and outlive this.
  WorkerPool(std::vector<AttentionClient*> workers,
             const RoutingPolicy* policy);

  // A ready worker whose name is not in `exclude` (those that failed this
  // request already); if there is none, one that waits for experts, or does not
  // answer just now: the request waits with it, until its deadline.
  // UNAVAILABLE: there is no such worker either; the text says of every worker
  // why not.
  //
  // All workers must serve the same model: the fingerprint of the first one
  // seen ready (or waiting for experts) counts from then on, and others are
  // never chosen.
  absl::StatusOr<WorkerLease> Choose(
      absl::Span<const std::string> exclude = {});

  struct WorkerStatus {
    std::string name;
    AttentionWorkerInfo info;
    int64_t in_flight = 0;  // requests of this router
    // Empty if the worker is ready and may be chosen, else why not.
    std::string not_ready;
    // May be chosen if no other is ready: it only waits for
    // experts, or is silent.
    bool can_wait = false;
  };
  // Of every worker, in the order of configuration; for /readyz and messages.
  std::vector<WorkerStatus> Describe();

 private:
  friend class WorkerLease;

  std::vector<WorkerStatus> DescribeLocked()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Fills in not_ready and can_wait from what the worker said.
  void Judge(WorkerStatus* worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<AttentionClient*> workers_;
  const RoutingPolicy* const policy_;
  Mutex mutex_;
  std::string fingerprint_ ABSL_GUARDED_BY(mutex_);  // empty: none seen yet
  std::string fingerprint_from_ ABSL_GUARDED_BY(mutex_);  // that worker's name
  std::vector<int64_t> in_flight_ ABSL_GUARDED_BY(mutex_);
  uint64_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ROUTING_WORKER_POOL_H_
