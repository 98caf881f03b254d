// How many requests may be open at once, and how many are.

#ifndef SWITCHYARD_ROUTER_ADMISSION_ADMISSION_H_
#define SWITCHYARD_ROUTER_ADMISSION_ADMISSION_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace switchyard::router {

// Thread-safe. Outlives its tickets.
class Admission {
 public:
  // One open request, from Admit() to the ticket's end. Not thread-safe.
  class Ticket {
   public:
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    // The first token came: the request runs and no longer waits. Idempotent.
    void SetRunning();

   private:
    friend class Admission;
    explicit Ticket(Admission* admission) : admission_(admission) {}
    Admission* const admission_;
    bool running_ = false;
  };

  explicit Admission(int64_t max_open) : max_open_(max_open) {}

  // RESOURCE_EXHAUSTED: `max_open` requests are open. UNAVAILABLE: closed.
  absl::StatusOr<std::unique_ptr<Ticket>> Admit();

  // From now on Admit() refuses.
  void Close();
  bool closed() const;
  // Waits for the end of all tickets; false if `deadline` came first.
  bool WaitUntilIdle(absl::Time deadline);

  int64_t waiting() const;  // open, without a token yet
  int64_t running() const;

 private:
  const int64_t max_open_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t running_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ADMISSION_ADMISSION_H_
