// Which requests are taken: how many may be open at once, how many tokens may
// wait, and how long for.

#ifndef SWITCHYARD_ROUTER_ADMISSION_ADMISSION_H_
#define SWITCHYARD_ROUTER_ADMISSION_ADMISSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "base/mutex.h"
#include "router/admission/ttft_estimate.h"

namespace switchyard::router {

// Thread-safe. Outlives its tickets.
class Admission {
 public:
  struct Options {
    int64_t max_open = 1024;
    // Of prompts without a first token, the newest included; 0: any number.
    int64_t max_waiting_tokens = 0;
    // A prompt that is expected to wait longer is refused; 0: none is.
    absl::Duration max_ttft = absl::ZeroDuration();
    std::function<absl::Time()> now = nullptr;  // thread-safe; must be given
  };

  // What became of AwaitToken().
  struct Decision {
    absl::Status status;
    absl::Duration retry_after;  // if it was refused
  };

  // One open request, from Admit() to the ticket's end. Not thread-safe.
  class Ticket {
   public:
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    // The request's prompts are known, and wait for their first token from now
    // on; once. RESOURCE_EXHAUSTED: too many tokens wait, or for too long;
    // never if nobody else waits.
    Decision AwaitToken(int64_t prompt_tokens);
    // The first token came: the request runs and no longer waits. Idempotent.
    void SetRunning();

   private:
    friend class Admission;
    explicit Ticket(Admission* admission) : admission_(admission) {}
    Admission* const admission_;
    bool running_ = false;
    absl::optional<int64_t> prompt_tokens_;  // that wait
  };

  explicit Admission(Options options) : options_(std::move(options)) {}

  // RESOURCE_EXHAUSTED: `max_open` requests are open. UNAVAILABLE: closed.
  absl::StatusOr<std::unique_ptr<Ticket>> Admit();

  // From now on Admit() refuses.
  void Close();
  bool closed() const;
  // Waits for the end of all tickets; false if `deadline` came first.
  bool WaitUntilIdle(absl::Time deadline);

  int64_t waiting() const;  // open, without a token yet
  int64_t running() const;
  int64_t waiting_tokens() const;
  // Of a prompt that came now, by what waits before it; nothing: too little has
  // been seen to tell.
  absl::optional<absl::Duration> estimated_ttft() const;

 private:
  const Options options_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  TtftEstimate ttft_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ADMISSION_ADMISSION_H_
