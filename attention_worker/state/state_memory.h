// One byte budget for all that sequences keep: pages of KV cache, recurrent
// states, snapshots of both, and what drafted tokens leave behind. Nothing of
// the kind is allocated elsewhere.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_STATE_MEMORY_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_STATE_MEMORY_H_

#include <array>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "attention_worker/state/block_pool.h"
#include "attention_worker/state/state_shape.h"
#include "base/mutex.h"

namespace switchyard::attention_worker {

// Floats that go back to their StateMemory when the last holder lets go.
using StateBlock = std::shared_ptr<float>;

// Thread-safe. Outlives every block that it gave.
class StateMemory {
 public:
  // RESOURCE_EXHAUSTED: the address space for `budget_bytes` is not to be had
  // (ulimit -v, vm.overcommit_memory = 2).
  static absl::StatusOr<std::unique_ptr<StateMemory>> Create(
      const StateShape& shape, int64_t budget_bytes);
  ~StateMemory();
  StateMemory(const StateMemory&) = delete;
  StateMemory& operator=(const StateMemory&) = delete;

  const StateShape& shape() const { return shape_; }
  int64_t budget_bytes() const { return budget_bytes_; }
  // Of blocks that somebody holds. What is in memory may be more (blocks that
  // wait for the next taker), but never more than the budget, but for the
  // rounding to memory pages.
  int64_t used_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

  // StateShape::PageFloats(), FixedFloats() or DraftFloats() of anything. Null
  // if the budget has no room.
  StateBlock TryTakePage() { return TryTake(BlockKind::kPage); }
  StateBlock TryTakeFixed() { return TryTake(BlockKind::kFixed); }
  StateBlock TryTakeDrafts() { return TryTake(BlockKind::kDrafts); }

 private:
  enum class BlockKind { kPage, kFixed, kDrafts };
  static constexpr int kNumKinds = 3;
  using Pools = std::array<BlockPool, kNumKinds>;

  StateMemory(const StateShape& shape, int64_t budget_bytes, Pools pools);
  StateBlock TryTake(BlockKind kind) ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t BytesInMemory() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const StateShape shape_;
  const int64_t budget_bytes_;
  mutable Mutex mutex_;
  Pools pools_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_STATE_MEMORY_H_
