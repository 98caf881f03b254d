// A mutex with thread-safety annotations over std::mutex.
//
// Not absl::Mutex: Debian's Abseil is not built with ThreadSanitizer, which
// then cannot see its locks; pthread mutexes it can.

#ifndef SWITCHYARD_BASE_MUTEX_H_
#define SWITCHYARD_BASE_MUTEX_H_

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace switchyard {

class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex)
      : mutex_(mutex) {
    mutex_->Lock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }

 private:
  Mutex* const mutex_;
};

// Every wait has a deadline; callers loop over their own condition.
class CondVar {
 public:
  // Releases `mutex`, waits for a signal or for `deadline`, and takes `mutex`
  // again. False when the deadline came first.
  bool WaitUntil(Mutex* mutex, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    // A day stands for "never": an infinite absl::Time overflows chrono.
    const absl::Duration left =
        std::min(deadline - absl::Now(), absl::Hours(24));
    const bool signalled =
        condition_.wait_for(lock, absl::ToChronoMicroseconds(
                                      std::max(left, absl::ZeroDuration()))) ==
        std::cv_status::no_timeout;
    lock.release();
    return signalled;
  }
  void Signal() { condition_.notify_one(); }
  void SignalAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_MUTEX_H_
