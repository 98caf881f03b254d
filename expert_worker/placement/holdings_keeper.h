// Brings this worker's experts in line with the placement while they serve:
// loads what it lacks, lets go of what others hold.
//
// Above: expert_worker/server.cc. Below: holdings_plan.h decides,
// experts/expert_engine.h holds.

#ifndef SWITCHYARD_EXPERT_WORKER_PLACEMENT_HOLDINGS_KEEPER_H_
#define SWITCHYARD_EXPERT_WORKER_PLACEMENT_HOLDINGS_KEEPER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/compute_pool.h"
#include "base/mutex.h"
#include "expert_worker/placement/holdings_plan.h"
#include "expert_worker/placement/movement_budget.h"
#include "experts/expert_engine.h"
#include "fabric/membership/member.h"
#include "metrics/registry.h"
#include "model/expert_set.h"

namespace switchyard::expert_worker {

// Thread-safe.
class HoldingsKeeper {
 public:
  struct Options {
    experts::ExpertEngine* engine = nullptr;  // not owned; outlives this
    ComputePool* pool = nullptr;  // for loading; this object's alone
    HoldingsPlanner::Options plan;
    int64_t room = 0;  // pairs that the engine can load
    // The latest view of the members; thread-safe.
    std::function<std::shared_ptr<const fabric::View>()> view;
    // Tells attention workers and routers. From the keeper's thread; what was
    // advertised is held until it has been withdrawn for `withdrawn_time`.
    std::function<void(const model::ExpertSet& holdings)> advertise;
    // Whether a request that is here needs the expert; thread-safe.
    std::function<bool(int layer, int expert)> in_use;
    // Once, when for the first time all is held that should be.
    std::function<void()> on_complete;
    metrics::Registry* registry = nullptr;  // not owned; outlives this

    // Loaded between two looks at the view, and advertised together.
    int max_batch_experts = 32;
    int64_t max_batch_bytes = int64_t{64} << 20;
    // Requests that were on their way when an expert was withdrawn have come
    // after so long; then its memory is free.
    absl::Duration withdrawn_time = absl::Seconds(1);
    // For further copies of hot experts (MovementBudget).
    int64_t hot_copy_bytes_per_minute = int64_t{4} << 30;
    // An expert that could not be read is tried again after so long.
    absl::Duration retry_time = absl::Seconds(30);
    // Of all of these times but the keeper's sleep. Not owned.
    const Clock* clock = Clock::Real();
  };

  // Begins at once, on a thread of its own ("expert-place").
  explicit HoldingsKeeper(Options options);
  // Stops.
  ~HoldingsKeeper();

  // Nothing is asked or told from now on. A load in progress ends first.
  // Idempotent; of one thread.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  // The view has changed.
  void Wake() ABSL_LOCKS_EXCLUDED(mutex_);

  // Loads nothing more, and withdraws each expert as soon as another worker
  // holds it. True once none is advertised, false at `deadline`.
  bool Drain(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Metrics {
    explicit Metrics(metrics::Registry* registry);
    metrics::Gauge* epoch;
    metrics::Gauge* under_replicated;
    metrics::Gauge* pending;
    metrics::Gauge* wanted;
    metrics::Gauge* first_benefit_seconds;
    metrics::Counter* loaded_bytes;
    metrics::Counter* hot_copy_bytes;
    metrics::Counter* dropped_bytes;
    metrics::Counter* failed_loads;
    metrics::Gauge* resident_bytes;
    metrics::Gauge* held;
  };
  using Key = std::pair<int, int>;  // layer, expert

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // One look at the view, if it has changed or time may have changed what
  // follows from it, and at most one batch. True: there is more to do at once.
  bool Step(bool draining, bool view_changed);
  bool LoadBatch(const HoldingsPlan& plan, absl::Time now);
  void FreeWithdrawn(absl::Time now);
  void Advertise();

  const Options options_;
  const Metrics metrics_;
  HoldingsPlanner planner_;

  // Of the thread.
  model::ExpertSet advertised_;
  std::map<Key, absl::Time> withdrawn_;  // since when; still in memory
  std::map<Key, absl::Time> failed_;     // until when not to try again
  absl::Time ready_since_ = absl::InfiniteFuture();
  bool completed_ = false;
  bool look_again_ = true;  // though the view is the same
  MovementBudget hot_copies_;

  Mutex mutex_;
  CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool drained_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_PLACEMENT_HOLDINGS_KEEPER_H_
