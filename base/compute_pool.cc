#include "base/compute_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/cgroup.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/thread.h"

namespace switchyard {
namespace {

// Ranges a thread may take in one loop. More of them even out unequal threads,
// fewer cost less to hand out.
constexpr int64_t kRangesPerThread = 4;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One call of ParallelFor; lives on its caller's stack.
struct Loop {
  const int64_t n;
  const int64_t range;  // items
  const absl::FunctionRef<void(int64_t, int64_t)> body;
  // First item that nobody has taken.
  alignas(64) std::atomic<int64_t> next{0};

  // Takes and runs ranges until none is left.
  void Run() {
    for (;;) {
      const int64_t begin = next.fetch_add(range, std::memory_order_relaxed);
      if (begin >= n) return;
      body(begin, std::min(begin + range, n));
    }
  }
};

// The caller publishes a Loop, works on it itself, withdraws it when no range
// is left, and waits for those helpers only that have joined meanwhile. So a
// loop never waits for a helper that the kernel hasn't woken yet.
class ThreadPool final : public ComputePool {
 public:
  ThreadPool(int num_threads, const char* name) : num_threads_(num_threads) {
    helpers_.reserve(num_threads - 1);
    for (int i = 1; i < num_threads; ++i) {
      helpers_.push_back(
          StartThread(absl::StrCat(name, "-", i), [this] { HelperMain(); }));
    }
  }

  ~ThreadPool() override {
    {
      MutexLock lock(&mutex_);
      SY_CHECK(loop_ == nullptr);
      stopping_ = true;
    }
    wake_.SignalAll();
    for (std::thread& helper : helpers_) helper.join();
  }

  int num_threads() const override { return num_threads_; }

  void ParallelFor(
      int64_t n, int64_t grain,
      absl::FunctionRef<void(int64_t begin, int64_t end)> body) override {
    SY_CHECK(grain >= 1);
    if (n <= 0) return;
    const int64_t range =
        std::max(grain, CeilDiv(n, num_threads_ * kRangesPerThread));
    const int64_t ranges = CeilDiv(n, range);
    const int64_t wanted =
        std::min<int64_t>(num_threads_, ranges) - 1;  // helpers
    if (wanted == 0) {
      body(0, n);
      return;
    }
    Loop loop{n, range, body};
    {
      MutexLock lock(&mutex_);
      SY_CHECK(loop_ == nullptr);  // one caller at a time, not reentrant
      loop_ = &loop;
      ++loop_number_;
    }
    // A helper that isn't asleep looks at loop_ before it falls asleep.
    if (wanted == num_threads_ - 1) {
      wake_.SignalAll();
    } else {
      for (int64_t i = 0; i < wanted; ++i) wake_.Signal();
    }
    loop.Run();
    MutexLock lock(&mutex_);
    loop_ = nullptr;
    while (joined_ > 0) left_.WaitUntil(&mutex_, absl::InfiniteFuture());
  }

 private:
  void HelperMain() {
    int64_t last_loop = 0;
    mutex_.Lock();
    for (;;) {
      while (!stopping_ && (loop_ == nullptr || loop_number_ == last_loop)) {
        wake_.WaitUntil(&mutex_, absl::InfiniteFuture());
      }
      if (stopping_) break;
      last_loop = loop_number_;
      Loop* const loop = loop_;
      ++joined_;
      mutex_.Unlock();
      loop->Run();
      mutex_.Lock();
      // Once withdrawn, `loop` must not be touched after this.
      if (--joined_ == 0 && loop_ == nullptr) left_.Signal();
    }
    mutex_.Unlock();
  }

  const int num_threads_;
  Mutex mutex_;
  CondVar wake_;  // a loop was published, or stopping_
  CondVar left_;  // the last helper has left a withdrawn loop
  Loop* loop_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int64_t loop_number_ ABSL_GUARDED_BY(mutex_) = 0;
  int joined_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> helpers_;
};

// CPUs of the scheduler's affinity mask; 0 when it can't be read.
int AffinityCpus() {
  // The kernel wants a mask as wide as its own: try wider ones until it fits.
  for (int cpus = CPU_SETSIZE; cpus <= 64 * CPU_SETSIZE; cpus *= 2) {
    cpu_set_t* const set = CPU_ALLOC(cpus);
    const size_t bytes = CPU_ALLOC_SIZE(cpus);
    const bool ok = sched_getaffinity(0, bytes, set) == 0;
    const int error = errno;
    const int count = ok ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (ok) return count;
    if (error != EINVAL) break;
  }
  return 0;
}

}  // namespace

void InlinePool::ParallelFor(
    int64_t n, int64_t grain,
    absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
  SY_CHECK(grain >= 1);
  if (n > 0) body(0, n);
}

std::unique_ptr<ComputePool> NewThreadPool(int num_threads, const char* name) {
  SY_CHECK(num_threads >= 1);
  return std::make_unique<ThreadPool>(num_threads, name);
}

int AvailableCpus() {
  int cpus = AffinityCpus();
  if (cpus < 1) cpus = static_cast<int>(std::thread::hardware_concurrency());
  if (const auto quota = CgroupCpuLimit(); quota.has_value()) {
    cpus = std::min(cpus, static_cast<int>(std::ceil(std::min(*quota, 1e6))));
  }
  return std::max(cpus, 1);
}

}  // namespace switchyard
