// Where holders' replies and changes meet the thread that waits for them.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_INBOX_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_INBOX_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attention_worker/moe/expert_client.h"
#include "base/compute_pool.h"
#include "base/mutex.h"
#include "metrics/registry.h"

namespace switchyard::attention_worker {

// Shared by a dispatcher and by every callback it ever gave away, so that a
// reply may come at any time, even after the dispatcher is gone. Keeps the
// replies of one dispatch at a time, at most one for each of its calls; all
// others are counted and dropped. Thread-safe.
class ReplyInbox {
 public:
  struct Arrival {
    size_t call = 0;  // the number given to Deliver
    absl::StatusOr<ExpertReply> reply;
  };
  struct News {
    std::vector<Arrival> arrivals;
    // [clients]: whether this one's holdings changed since the last news.
    std::vector<bool> changed;
  };

  // `late` counts dropped replies; not owned.
  ReplyInbox(size_t num_clients, metrics::Counter* late);

  // Begins a dispatch and returns its number: replies that carry it are kept.
  uint64_t Open();
  // Ends it: what comes later is dropped.
  void Close();

  void Deliver(uint64_t dispatch, size_t call,
               absl::StatusOr<ExpertReply> reply);
  void HoldingsChanged(size_t client);

  // Everything new since the last call; waits until there is something, or
  // `deadline`. The caller's `pool` (null: none) sleeps while this waits.
  News Take(absl::Time deadline, ComputePool* pool);

 private:
  metrics::Counter* const late_;
  Mutex mutex_;
  CondVar something_new_;
  uint64_t dispatch_ ABSL_GUARDED_BY(mutex_) = 0;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  bool any_changed_ ABSL_GUARDED_BY(mutex_) = true;
  News news_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_INBOX_H_
