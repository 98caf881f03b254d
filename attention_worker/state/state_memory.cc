#include "attention_worker/state/state_memory.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

int64_t BlocksThatFit(int64_t budget_bytes, int64_t block_bytes) {
  return block_bytes == 0 ? 0 : budget_bytes / block_bytes;
}

absl::StatusOr<BlockPool> MakePool(int64_t block_floats, int64_t block_bytes,
                                   int64_t budget_bytes) {
  return BlockPool::Create(block_floats,
                           BlocksThatFit(budget_bytes, block_bytes));
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateMemory>> StateMemory::Create(
    const StateShape& shape, int64_t budget_bytes) {
  SY_CHECK(budget_bytes >= 0);
  SY_ASSIGN_OR_RETURN(
      BlockPool pages,
      MakePool(shape.PageFloats(), shape.PageBytes(), budget_bytes));
  SY_ASSIGN_OR_RETURN(
      BlockPool fixed,
      MakePool(shape.FixedFloats(), shape.FixedBytes(), budget_bytes));
  SY_ASSIGN_OR_RETURN(
      BlockPool drafts,
      MakePool(shape.DraftFloats(), shape.DraftBytes(), budget_bytes));
  return std::unique_ptr<StateMemory>(new StateMemory(
      shape, budget_bytes,
      Pools{std::move(pages), std::move(fixed), std::move(drafts)}));
}

StateMemory::StateMemory(const StateShape& shape, int64_t budget_bytes,
                         Pools pools)
    : shape_(shape), budget_bytes_(budget_bytes), pools_(std::move(pools)) {}

StateMemory::~StateMemory() { SY_CHECK(used_bytes() == 0); }

int64_t StateMemory::used_bytes() const {
  MutexLock lock(&mutex_);
  int64_t bytes = 0;
  for (const BlockPool& pool : pools_) {
    bytes += pool.used_blocks() * pool.block_bytes();
  }
  return bytes;
}

int64_t StateMemory::BytesInMemory() const {
  int64_t bytes = 0;
  for (const BlockPool& pool : pools_) {
    bytes += (pool.used_blocks() + pool.warm_blocks()) * pool.block_bytes();
  }
  return bytes;
}

StateBlock StateMemory::TryTake(BlockKind kind) {
  MutexLock lock(&mutex_);
  BlockPool* const from = &pools_[static_cast<int>(kind)];
  while (from->warm_blocks() == 0 &&
         BytesInMemory() + from->block_bytes() > budget_bytes_) {
    const bool released =
        std::any_of(pools_.begin(), pools_.end(),
                    [](BlockPool& pool) { return pool.ReleaseOneWarm(); });
    if (!released) return nullptr;
  }
  float* const block = from->Take();
  if (block == nullptr) return nullptr;
  return StateBlock(block, [this, from](float* done) {
    MutexLock giving(&mutex_);
    from->Give(done);
  });
}

}  // namespace switchyard::attention_worker
