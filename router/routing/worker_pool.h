// The attention workers that this router knows, and the choice among them.
//
// Above: router/openai chooses a worker for each request, and another one when
// it dies. Below: policy.h decides among those that may be chosen.

#ifndef SWITCHYARD_ROUTER_ROUTING_WORKER_POOL_H_
#define SWITCHYARD_ROUTER_ROUTING_WORKER_POOL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
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
  WorkerLease(WorkerPool* pool, uint64_t place, AttentionClient* worker)
      : pool_(pool), place_(place), worker_(worker) {}
  void Release();

  WorkerPool* pool_;  // null: moved from
  uint64_t place_;    // in the pool
  AttentionClient* worker_;
};

// Sees how the workers are whenever it is asked anything, and does not look by
// itself: somebody calls Describe() from time to time, so that it knows when it
// was that one could take requests last. Thread-safe.
class WorkerPool {
 public:
  struct Options {
    // How long after that moment one is expected back; 0: never.
    absl::Duration worker_grace = absl::ZeroDuration();
    std::function<absl::Time()> now = absl::Now;  // thread-safe
  };
  // `workers` and `policy` are not owned and outlive this.
  WorkerPool(std::vector<AttentionClient*> workers, const RoutingPolicy* policy,
             Options options);

  // One more worker, in the order of coming behind the others. False, and
  // nothing changes, if there is one with its name.
  bool Add(std::shared_ptr<AttentionClient> worker) ABSL_LOCKS_EXCLUDED(mutex_);
  // A worker that was added is not chosen any more; requests that it has go on.
  // False: there is none with that name.
  bool Remove(absl::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);
  // There is a worker with that name, and it is asked at once how it is:
  // another process may have come to its address.
  bool AskNow(absl::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);
  // Workers that were removed and have no request any more. To be destroyed by
  // a thread that may wait (AttentionClient's destructor).
  std::vector<std::shared_ptr<AttentionClient>> TakeRemoved()
      ABSL_LOCKS_EXCLUDED(mutex_);

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

  // Until when a request that no worker can take should wait for one: the last
  // moment at which one could be chosen, and the grace. A whole fleet that
  // restarts is a pause then, no error. InfinitePast: no worker ever could, or
  // there is no grace.
  absl::Time ExpectedBackBy() ABSL_LOCKS_EXCLUDED(mutex_);

  // What the workers that can be chosen serve, or served last.
  struct ServedModel {
    std::string fingerprint;    // empty: none seen yet
    int64_t max_model_len = 0;  // the least of theirs, tokens; 0: not known
  };
  ServedModel served_model() ABSL_LOCKS_EXCLUDED(mutex_);

  // A place at every worker that is not removed, ready or not; for what
  // concerns all of them.
  std::vector<WorkerLease> LeaseAll() ABSL_LOCKS_EXCLUDED(mutex_);

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
  // Of every worker, in the order of configuration and coming; for /readyz and
  // messages.
  std::vector<WorkerStatus> Describe() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class WorkerLease;

  // Of those that are not removed; their numbers too, if wanted.
  std::vector<WorkerStatus> DescribeLocked(
      std::vector<uint64_t>* places = nullptr)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Fills in not_ready and can_wait from what the worker said.
  void Judge(WorkerStatus* worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Keeps what is to be known when no worker can be chosen any more.
  void Remember(const std::vector<WorkerStatus>& all)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  struct Place {
    AttentionClient* worker = nullptr;
    std::shared_ptr<AttentionClient> owned;  // null: of the constructor's
    int64_t in_flight = 0;
    bool removed = false;
  };

  const RoutingPolicy* const policy_;
  const Options options_;
  Mutex mutex_;
  // By number: ascending in the order of coming, never used twice.
  std::map<uint64_t, Place> places_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_place_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string fingerprint_ ABSL_GUARDED_BY(mutex_);  // empty: none seen yet
  std::string fingerprint_from_ ABSL_GUARDED_BY(mutex_);  // that worker's name
  // Whether a worker could be chosen when somebody looked last; when it was so
  // last, and what those workers' limit was.
  bool any_choosable_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time last_choosable_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  int64_t max_model_len_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ROUTING_WORKER_POOL_H_
