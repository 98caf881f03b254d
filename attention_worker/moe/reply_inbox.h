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
// replies of one dispatch at a time, at most one for each of its calls, and
// those of probes; of all others just that they came. Thread-safe, but for
// Take: one thread at a time.
class ReplyInbox {
 public:
  // Instead of a dispatch's number: kept whenever it comes.
  static constexpr uint64_t kProbe = 0;

  // What a call's callback brings back with the reply.
  struct Ticket {
    uint64_t dispatch = 0;
    uint64_t call = 0;    // of the dispatch
    uint64_t holder = 0;  // the client's id
    uint64_t serial = 0;  // of all calls (moe/holder_table.h)
  };
  struct Arrival {
    Ticket ticket;
    absl::Time arrived;
    // When it may have been there already, since nobody had looked.
    absl::Time not_before;
    absl::StatusOr<ExpertReply> reply;
  };
  // A reply that nobody waited for any more.
  struct Late {
    Ticket ticket;
    absl::Time arrived;
    absl::Time not_before;
    bool ok = false;
  };
  struct News {
    std::vector<Arrival> arrivals;
    std::vector<Arrival> probes;
    std::vector<Late> late;  // the first kMaxLate
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

  void Deliver(const Ticket& ticket, absl::StatusOr<ExpertReply> reply)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void HoldingsChanged(uint64_t client) ABSL_LOCKS_EXCLUDED(mutex_);
  void ClientsChanged() ABSL_LOCKS_EXCLUDED(mutex_);

  // Everything new since the last call, in `news`, whose memory is used again;
  // waits until there is something, or `deadline`. The caller's `pool` (null:
  // none) sleeps while this waits.
  void Take(absl::Time deadline, ComputePool* pool, News* news)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // A thread that is slow to fetch them must not be flooded by a peer's.
  static constexpr size_t kMaxLate = 4096;

  // One Poll, of which Deliver knows when it began.
  bool Look(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // When a reply that is being delivered may have been there.
  absl::Time NotBefore(absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends Take's wait on the thread that is in it.
  void Notify() ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    // Late ones too: who hangs no more may be asked again.
    return !news_.arrivals.empty() || !news_.probes.empty() ||
           !news_.late.empty() || !news_.changed.empty() ||
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
  // The pump was looked into last until then, and is again since.
  absl::Time looked_until_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time looks_since_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  // The thread that polls the pump; none if it does not.
  std::thread::id polling_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_REPLY_INBOX_H_
