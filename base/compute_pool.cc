#include "base/compute_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

// A range is this share of what is left for each thread: long ranges first,
// short ones at the end, where they even out unequal threads.
constexpr int64_t kRangeShare = 2;

// Looks at an atomic between two looks at the clock or offers of the CPU.
constexpr int kLooks = 64;
// The caller looks that many times kLooks whether the helpers have left before
// it sleeps: about a millisecond.
constexpr int kLeaveRounds = 512;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lets the other hardware thread of this core run meanwhile.
void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

// One call of ParallelFor; lives on its caller's stack.
struct Loop {
  const int64_t n;
  const int64_t grain;
  const int64_t shares;  // a range is 1 / shares of what is left
  const absl::FunctionRef<void(int64_t, int64_t)> body;
  // First item that nobody has taken.
  alignas(64) std::atomic<int64_t> next{0};

  // Takes and runs ranges until none is left.
  void Run() {
    int64_t begin = next.load(std::memory_order_relaxed);
    while (begin < n) {
      const int64_t end =
          std::min(n, begin + std::max(grain, CeilDiv(n - begin, shares)));
      if (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) {
        continue;  // `begin` is the current value
      }
      body(begin, end);
      begin = next.load(std::memory_order_relaxed);
    }
  }
};

// The state of the loop that is published, in one word:
//   bits  0-13  helpers that are in it
//   bits 14-27  helpers that may be in it at a time
//   bit     28  open: helpers may join
//   bit     29  the caller sleeps until the last helper has left
//   bits 32-63  the loop's number
// The caller writes loop_ before it opens a loop, and the next time when the
// word says that all helpers have left: so whoever has joined may read it.
using Word = uint64_t;
constexpr Word kOne = 1;
constexpr int kMaxHelpers = (1 << 14) - 1;
constexpr Word kOpen = kOne << 28;
constexpr Word kCallerSleeps = kOne << 29;
constexpr int kNumberShift = 32;

int Joined(Word word) { return static_cast<int>(word) & kMaxHelpers; }
int Wanted(Word word) { return static_cast<int>(word >> 14) & kMaxHelpers; }
uint32_t Number(Word word) { return static_cast<uint32_t>(word >> 32); }

// The caller publishes a Loop, works on it itself, closes it when no range is
// left, and waits for those helpers only that have joined meanwhile. So a loop
// never waits for a helper that the kernel hasn't woken yet. Handing out takes
// no lock as long as nobody sleeps.
//
// Sleeping: a helper counts itself in sleepers_ and then looks for a loop once
// more; the caller opens a loop and then looks at sleepers_. Both in sequential
// order: one of them sees the other.
class ThreadPool final : public ComputePool {
 public:
  explicit ThreadPool(ThreadPoolOptions options)
      : options_(std::move(options)),
        num_helpers_(options_.num_threads - 1),
        spin_(absl::ToChronoNanoseconds(options_.spin)) {
    helpers_.reserve(num_helpers_);
    for (int i = 1; i <= num_helpers_; ++i) {
      helpers_.push_back(StartThread(absl::StrCat(options_.name, "-", i),
                                     [this, i] { HelperMain(i); }));
    }
  }

  ~ThreadPool() override {
    SY_CHECK(loop_ == nullptr);
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
    }
    stop_spinning_ = true;
    wake_.SignalAll();
    for (std::thread& helper : helpers_) helper.join();
  }

  int num_threads() const override { return num_helpers_ + 1; }

  void ParallelFor(
      int64_t n, int64_t grain,
      absl::FunctionRef<void(int64_t begin, int64_t end)> body) override {
    SY_CHECK(grain >= 1);
    if (n <= 0) return;
    const int wanted = static_cast<int>(
        std::min<int64_t>(num_helpers_, CeilDiv(n, grain) - 1));
    if (wanted == 0) {
      body(0, n);
      return;
    }
    SY_CHECK(loop_ == nullptr);  // one caller at a time, not reentrant
    Loop loop{n, grain, kRangeShare * (wanted + 1), body};
    loop_ = &loop;
    word_.store(Word{++number_} << kNumberShift | kOpen |
                static_cast<Word>(wanted) << 14);
    WakeUpTo(wanted - (num_helpers_ - sleepers_.load()));
    loop.Run();
    Close();
    loop_ = nullptr;
  }

 private:
  void Enter() override {
    const int depth = active_.load(std::memory_order_relaxed);
    active_.store(depth + 1, std::memory_order_relaxed);
    if (!options_.cpus.empty() && caller_ != std::this_thread::get_id()) {
      caller_ = std::this_thread::get_id();
      Pin(0);
    }
    if (depth == 0 && spin_.count() > 0) {
      alarm_.fetch_add(1);
      WakeUpTo(sleepers_.load());
    }
  }
  void Leave() override {
    active_.store(active_.load(std::memory_order_relaxed) - 1,
                  std::memory_order_relaxed);
  }
  void Pause() override {
    stop_spinning_.store(true, std::memory_order_relaxed);
  }
  void Resume() override {
    stop_spinning_.store(false, std::memory_order_relaxed);
  }

  // Wakes that many sleeping helpers, or all.
  void WakeUpTo(int helpers) ABSL_LOCKS_EXCLUDED(mutex_) {
    if (helpers <= 0) return;
    // Whoever has counted itself as asleep holds the mutex until it is.
    { MutexLock lock(&mutex_); }
    if (helpers >= num_helpers_) {
      wake_.SignalAll();
    } else {
      for (int i = 0; i < helpers; ++i) wake_.Signal();
    }
  }

  // Lets no more helpers in, and waits until the last has left.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_) {
    Word word = word_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int i = 0; Joined(word) > 0 && i < kLeaveRounds * kLooks; ++i) {
      // The helper may have lost its CPU to someone who is waiting behind us.
      if (i % kLooks == kLooks - 1) sched_yield();
      CpuRelax();
      word = word_.load(std::memory_order_acquire);
    }
    if (Joined(word) == 0) return;
    word = word_.fetch_or(kCallerSleeps, std::memory_order_acq_rel);
    MutexLock lock(&mutex_);
    while (Joined(word_.load(std::memory_order_acquire)) > 0) {
      left_.WaitUntil(&mutex_, absl::InfiniteFuture());
    }
  }

  // A loop that helpers may still join, other than number `last`.
  static bool Joinable(Word word, uint32_t last) {
    return (word & kOpen) != 0 && Number(word) != last &&
           Joined(word) < Wanted(word);
  }

  // Takes part in the open loop, if there is one but `*last` and it has room.
  bool JoinLoop(uint32_t* last) ABSL_LOCKS_EXCLUDED(mutex_) {
    Word word = word_.load(std::memory_order_relaxed);
    do {
      if (!Joinable(word, *last)) return false;
    } while (!word_.compare_exchange_weak(
        word, word + 1, std::memory_order_acquire, std::memory_order_relaxed));
    *last = Number(word);
    loop_->Run();
    // After this the loop may be gone.
    word = word_.fetch_sub(1, std::memory_order_acq_rel);
    if ((word & kCallerSleeps) != 0 && Joined(word) == 1) {
      MutexLock lock(&mutex_);
      left_.Signal();
    }
    return true;
  }

  void HelperMain(int index) ABSL_LOCKS_EXCLUDED(mutex_) {
    if (!options_.cpus.empty()) Pin(index);
    uint32_t last = 0;  // loop that this helper was in
    do {
      Clock::time_point since = Clock::now();
      bool was_active = false;
      while (!stop_spinning_.load(std::memory_order_relaxed)) {
        if (Spin(&last)) {
          since = Clock::now();
          was_active = active_.load(std::memory_order_relaxed) > 0;
        }
        // Only for loops of a step; one that ends meanwhile leaves this helper
        // awake for the next.
        was_active = was_active || active_.load(std::memory_order_relaxed) > 0;
        if (!was_active || Clock::now() - since >= spin_) break;
        // Whoever else is waiting for this CPU goes first.
        sched_yield();
      }
    } while (Sleep(&last));
  }

  // Looks for a loop for about a microsecond. True: there was one, and it is
  // done.
  bool Spin(uint32_t* last) {
    for (int i = 0; i < kLooks; ++i) {
      if (JoinLoop(last)) return true;
      CpuRelax();
    }
    return false;
  }

  // Until there is a loop, or a step begins. False when the pool is to end.
  bool Sleep(uint32_t* last) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      const uint32_t alarm = alarm_.load();
      sleepers_.fetch_add(1);
      while (!stopping_ && alarm_.load() == alarm &&
             !Joinable(word_.load(), *last)) {
        wake_.WaitUntil(&mutex_, absl::InfiniteFuture());
      }
      sleepers_.fetch_sub(1);
      if (stopping_) return false;
    }
    JoinLoop(last);
    return true;
  }

  void Pin(int index) const {
    const absl::Status status = PinThisThread(options_.cpus[index]);
    if (!status.ok()) LogWarning(status.ToString());
  }

  const ThreadPoolOptions options_;
  const int num_helpers_;
  const std::chrono::nanoseconds spin_;

  // Of the caller; helpers read it between joining and leaving.
  Loop* loop_ = nullptr;
  uint32_t number_ = 0;     // the caller's
  std::thread::id caller_;  // that was bound to its CPU

  alignas(64) std::atomic<Word> word_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  // Counts Enter()s: whoever sleeps wakes up for one.
  std::atomic<uint32_t> alarm_{0};
  std::atomic<int> active_{0};  // Enter()s without their Leave()
  std::atomic<bool> stop_spinning_{false};

  Mutex mutex_;
  CondVar wake_;  // a loop was opened, a step begins, or stopping_
  CondVar left_;  // the last helper has left a loop whose caller sleeps
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> helpers_;
};

}  // namespace

void InlinePool::ParallelFor(
    int64_t n, int64_t grain,
    absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
  SY_CHECK(grain >= 1);
  if (n > 0) body(0, n);
}

std::unique_ptr<ComputePool> NewThreadPool(ThreadPoolOptions options) {
  SY_CHECK(options.num_threads >= 1 && options.num_threads <= kMaxHelpers);
  SY_CHECK(options.cpus.empty() ||
           options.cpus.size() == static_cast<size_t>(options.num_threads));
  return std::make_unique<ThreadPool>(std::move(options));
}

std::unique_ptr<ComputePool> NewThreadPool(int num_threads, const char* name) {
  ThreadPoolOptions options;
  options.num_threads = num_threads;
  options.name = name;
  return NewThreadPool(std::move(options));
}

}  // namespace switchyard
