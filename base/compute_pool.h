// Threads that share out one loop at a time. An argument wherever something is
// computed: nothing below a server starts threads of its own.

#ifndef SWITCHYARD_BASE_COMPUTE_POOL_H_
#define SWITCHYARD_BASE_COMPUTE_POOL_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"

namespace switchyard {

class ComputePool {
 public:
  virtual ~ComputePool() = default;

  // How many threads take part in ParallelFor, the caller included. >= 1.
  virtual int num_threads() const = 0;

  // Calls body(begin, end) for disjoint ranges that cover [0, n), each of at
  // least `grain` items (the last may be shorter), from several threads, and
  // returns when all have returned. Which thread takes which range is not
  // fixed, so `body` must write a result that does not depend on it.
  // One caller at a time; not reentrant.
  virtual void ParallelFor(
      int64_t n, int64_t grain,
      absl::FunctionRef<void(int64_t begin, int64_t end)> body) = 0;
};

// Runs everything on the caller. Stateless: any number of callers.
class InlinePool final : public ComputePool {
 public:
  int num_threads() const override { return 1; }
  void ParallelFor(
      int64_t n, int64_t grain,
      absl::FunctionRef<void(int64_t begin, int64_t end)> body) override;
};

// The caller and `num_threads - 1` threads called NAME-1, NAME-2, ...
// Idle threads sleep; there is no spinning between loops.
// `name` must outlive the call only.
std::unique_ptr<ComputePool> NewThreadPool(int num_threads, const char* name);

// CPUs that this process may use: affinity and cgroup quota, rounded up. >= 1.
int AvailableCpus();

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_COMPUTE_POOL_H_
