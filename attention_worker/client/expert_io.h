// The completion queue of all expert workers' streams, and the threads that
// look into it.
//
// Above: grpc_expert_client.h has one stream each. The dispatching thread sees
// this as moe/reply_pump.h.

#ifndef SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_IO_H_
#define SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_IO_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "attention_worker/moe/reply_pump.h"
#include "base/mutex.h"
#include "grpcpp/alarm.h"
#include "grpcpp/completion_queue.h"

namespace switchyard::attention_worker {

// Whose events come through the queue. Called by any thread that looks into it,
// several at a time.
class ExpertIoHandler {
 public:
  virtual ~ExpertIoHandler() = default;
  virtual void OnEvent(int op, bool ok) = 0;
  // Does what is due at `now`; returns when to be called next.
  virtual absl::Time OnTimer(absl::Time now) = 0;
};

// One thread ("expert-io") waits in the queue, so that replies, losses and
// gRPC's own reconnects are noticed at once; it stays away while the
// dispatching thread looks there itself, which saves the hand-over.
// Thread-safe.
class ExpertIo final : public ReplyPump {
 public:
  // What operations are started with; lives until they come back.
  struct Tag {
    ExpertIoHandler* handler;
    int op;
  };

  // A Poll looks for `spin` before it sleeps (rpc/queue_poll.h).
  explicit ExpertIo(absl::Duration spin);
  // REQUIRES: no handler is left.
  ~ExpertIo() override;

  grpc::CompletionQueue* queue() { return &queue_; }

  void Add(ExpertIoHandler* handler) ABSL_LOCKS_EXCLUDED(mutex_);
  // Afterwards OnTimer is not called any more, nor running. REQUIRES: no
  // operation is under way. Not from OnEvent or OnTimer.
  void Remove(ExpertIoHandler* handler) ABSL_LOCKS_EXCLUDED(mutex_);

  // OnTimer of all is called at `when`, if not earlier.
  void ScheduleTimer(absl::Time when) ABSL_LOCKS_EXCLUDED(alarm_mutex_);

  bool Poll(absl::Time deadline) override;
  void Wake() override ABSL_LOCKS_EXCLUDED(alarm_mutex_);

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(park_mutex_);
  // Waits while the dispatching thread looks after the queue. False: stopping.
  bool Park() ABSL_LOCKS_EXCLUDED(park_mutex_);
  void Handle(void* tag, bool ok);
  void RunTimers() ABSL_LOCKS_EXCLUDED(mutex_, alarm_mutex_);

  const absl::Duration spin_;
  grpc::CompletionQueue queue_;
  Tag timer_tag_{nullptr, 0};
  Tag wake_tag_{nullptr, 1};

  // The dispatching thread looks, or will again soon, until this time, in ns
  // since 1970.
  std::atomic<int64_t> caller_looks_until_{0};
  std::atomic<bool> caller_polls_{false};
  std::atomic<bool> caller_woken_{false};  // by an event that Loop took
  std::atomic<bool> stopping_{false};

  Mutex mutex_;  // held during OnTimer
  std::set<ExpertIoHandler*> handlers_ ABSL_GUARDED_BY(mutex_);

  Mutex alarm_mutex_;
  grpc::Alarm timer_ ABSL_GUARDED_BY(alarm_mutex_);
  bool timer_set_ ABSL_GUARDED_BY(alarm_mutex_) = false;
  absl::Time timer_at_ ABSL_GUARDED_BY(alarm_mutex_);  // while it is set
  absl::Time timer_wanted_ ABSL_GUARDED_BY(alarm_mutex_) =
      absl::InfiniteFuture();
  grpc::Alarm wake_ ABSL_GUARDED_BY(alarm_mutex_);
  bool wake_set_ ABSL_GUARDED_BY(alarm_mutex_) = false;

  Mutex park_mutex_;
  CondVar unpark_;

  std::thread thread_;  // last: uses everything above
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_IO_H_
