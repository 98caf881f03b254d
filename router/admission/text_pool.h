// A few threads for text work (parsing, rendering, tokenizing) that is too long
// for an I/O thread, behind a bounded queue.

#ifndef SWITCHYARD_ROUTER_ADMISSION_TEXT_POOL_H_
#define SWITCHYARD_ROUTER_ADMISSION_TEXT_POOL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"

namespace switchyard::router {

// Thread-safe. The destructor stops.
class TextPool {
 public:
  struct Options {
    int num_threads = 2;  // called text-1, text-2, ...
    int64_t max_queued = 256;
    int64_t max_queued_bytes = 128 << 20;
  };

  explicit TextPool(const Options& options);
  ~TextPool();
  TextPool(const TextPool&) = delete;
  TextPool& operator=(const TextPool&) = delete;

  // `bytes` is the size of what `work` holds. RESOURCE_EXHAUSTED: the queue is
  // full, by count or by bytes; `work` is dropped.
  // UNAVAILABLE: stopped.
  absl::Status Submit(int64_t bytes, std::function<void()> work);

  // Drops what has not begun and waits for what has. Idempotent, but not to be
  // called by two threads at once.
  void Stop();

 private:
  void Run();

  const Options options_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::pair<int64_t, std::function<void()>>> queue_
      ABSL_GUARDED_BY(mutex_);
  int64_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::thread> threads_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ADMISSION_TEXT_POOL_H_
