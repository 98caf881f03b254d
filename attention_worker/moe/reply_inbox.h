// Where holders' replies and changes meet the thread that waits for them.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_INBOX_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_INBOX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/reply_pump.h"
#include "base/clock.h"
#include "base/compute_pool.h"
#include "base/mutex.h"
#include "metrics/registry.h"

namespace switchyard::attention_worker {

// Shared by a dispatcher and by every callback it ever gave away, so that a
// reply may come at any time, even after the dispatcher is gone. Keeps the
// replies of one dispatch at a time, at most one for each of its calls; all
// others are counted and dropped. Thread-safe, but for Take: one thread at a
// time.
class ReplyInbox {
 public:
  struct Arrival {
    size_t call = 0;  // the number given to Deliver
    absl::StatusOr<ExpertReply> reply;
  };
  struct News {
    std::vector<Arrival> arrivals;
    // Ids of clients whose holdings changed since the last news, each once.
    std::vector<uint64_t> changed;
    bool clients_changed = false;  // there are others in the set
  };

  // `late` counts dropped replies; not owned. `pump` may be null: then all news
  // come from other threads. Deadlines, the pump's too, are `clock`'s times;
  // not owned.
  ReplyInbox(metrics::Counter* late, std::shared_ptr<ReplyPump> pump,
             const Clock* clock);

  // Begins a dispatch and returns its number: replies that carry it are kept.
  uint64_t Open() ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends it: what comes later is dropped.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);

  void Deliver(uint64_t dispatch, size_t call,
               absl::StatusOr<ExpertReply> reply) ABSL_LOCKS_EXCLUDED(mutex_);
  void HoldingsChanged(uint64_t client) ABSL_LOCKS_EXCLUDED(mutex_);
  void ClientsChanged() ABSL_LOCKS_EXCLUDED(mutex_);

  // Everything new since the last call, in `news`, whose memory is used again;
  // waits until there is something, or `deadline`. The caller's `pool` (null:
  // none) sleeps while this waits.
  void Take(absl::Time deadline, ComputePool* pool, News* news)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // Ends Take's wait on the thread that is in it.
  void Notify() ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !news_.arrivals.empty() || !news_.changed.empty() ||
           news_.clients_changed;
  }

  metrics::Counter* const late_;
  const std::shared_ptr<ReplyPump> pump_;
  const Clock* const clock_;
  Mutex mutex_;
  CondVar something_new_;
  uint64_t dispatch_ ABSL_GUARDED_BY(mutex_) = 0;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  News news_ ABSL_GUARDED_BY(mutex_);
  // The thread that polls the pump; none if it does not.
  std::thread::id polling_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_INBOX_H_
