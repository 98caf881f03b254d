// Threads that share out one loop at a time. An argument wherever something is
// computed: nothing below a server starts threads of its own.

#ifndef SWITCHYARD_BASE_COMPUTE_POOL_H_
#define SWITCHYARD_BASE_COMPUTE_POOL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "base/cpu_set.h"  // AvailableCpus(), which pools are made with

namespace switchyard {

class ComputePool {
 public:
  virtual ~ComputePool() = default;

  // How many threads take part in ParallelFor, the caller included. >= 1.
  virtual int num_threads() const = 0;

  // Calls body(begin, end) for disjoint ranges that cover [0, n), each of at
  // least `grain` items (the last may be shorter), from several threads, and
  // returns when all have returned. Ranges are handed out in ascending order,
  // long ones first. Which thread takes which range is not fixed, so `body`
  // must write a result that does not depend on it.
  // One caller at a time; not reentrant.
  virtual void ParallelFor(
      int64_t n, int64_t grain,
      absl::FunctionRef<void(int64_t begin, int64_t end)> body) = 0;

  // Held around work that has many loops soon after one another (a step): wakes
  // the threads once, ahead of the first loop, and lets them wait for the next
  // one awake. Waking a thread takes some 50 us, a loop of one token often
  // less. On the thread that calls ParallelFor; they nest.
  class Active {
   public:
    explicit Active(ComputePool* pool) : pool_(pool) { pool_->Enter(); }
    ~Active() { pool_->Leave(); }
    Active(const Active&) = delete;
    Active& operator=(const Active&) = delete;

   private:
    ComputePool* const pool_;
  };

  // Held, within or without an Active, while the calling thread waits for
  // something else than its own threads: those sleep at once, and leave the
  // CPUs to whoever is waited for.
  class Paused {
   public:
    explicit Paused(ComputePool* pool) : pool_(pool) { pool_->Pause(); }
    ~Paused() { pool_->Resume(); }
    Paused(const Paused&) = delete;
    Paused& operator=(const Paused&) = delete;

   private:
    ComputePool* const pool_;
  };

 private:
  virtual void Enter() {}
  virtual void Leave() {}
  virtual void Pause() {}
  virtual void Resume() {}
};

// Runs everything on the caller. Stateless: any number of callers.
class InlinePool final : public ComputePool {
 public:
  int num_threads() const override { return 1; }
  void ParallelFor(
      int64_t n, int64_t grain,
      absl::FunctionRef<void(int64_t begin, int64_t end)> body) override;
};

struct ThreadPoolOptions {
  int num_threads = 1;  // the caller included
  std::string name;     // threads are called NAME-1, NAME-2, ...
  // While the pool is active, and so long after: a thread without work stays
  // awake for this long. 0: it sleeps at once.
  absl::Duration spin = absl::Microseconds(200);
  // Not empty: thread i runs on cpus[i] alone, as many as threads. Thread 0 is
  // the caller: it is bound when it first holds an Active.
  std::vector<int> cpus;
};

// The caller and `num_threads - 1` threads, which sleep while there is nothing
// to do.
std::unique_ptr<ComputePool> NewThreadPool(ThreadPoolOptions options);
std::unique_ptr<ComputePool> NewThreadPool(int num_threads, const char* name);

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_COMPUTE_POOL_H_
