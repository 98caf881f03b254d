#include "attention_worker/state/state_memory.h"

#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

int64_t BlocksThatFit(int64_t budget_bytes, int64_t block_bytes) {
  return block_bytes == 0 ? 0 : budget_bytes / block_bytes;
}

int64_t InMemory(const BlockPool& pool) {
  return (pool.used_blocks() + pool.warm_blocks()) * pool.block_bytes();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateMemory>> StateMemory::Create(
    const StateShape& shape, int64_t budget_bytes) {
  SY_CHECK(budget_bytes >= 0);
  SY_ASSIGN_OR_RETURN(
      BlockPool pages,
      BlockPool::Create(shape.PageFloats(),
                        BlocksThatFit(budget_bytes, shape.PageBytes())));
  SY_ASSIGN_OR_RETURN(
      BlockPool fixed,
      BlockPool::Create(shape.FixedFloats(),
                        BlocksThatFit(budget_bytes, shape.FixedBytes())));
  return std::unique_ptr<StateMemory>(
      new StateMemory(shape, budget_bytes, std::move(pages), std::move(fixed)));
}

StateMemory::StateMemory(const StateShape& shape, int64_t budget_bytes,
                         BlockPool pages, BlockPool fixed)
    : shape_(shape),
      budget_bytes_(budget_bytes),
      pages_(std::move(pages)),
      fixed_(std::move(fixed)) {}

StateMemory::~StateMemory() { SY_CHECK(used_bytes() == 0); }

int64_t StateMemory::used_bytes() const {
  MutexLock lock(&mutex_);
  return pages_.used_blocks() * pages_.block_bytes() +
         fixed_.used_blocks() * fixed_.block_bytes();
}

StateBlock StateMemory::TryTakePage() { return TryTake(&pages_, &fixed_); }

StateBlock StateMemory::TryTakeFixed() { return TryTake(&fixed_, &pages_); }

StateBlock StateMemory::TryTake(BlockPool* from, BlockPool* other) {
  MutexLock lock(&mutex_);
  if (from->warm_blocks() == 0) {
    while (InMemory(*from) + InMemory(*other) + from->block_bytes() >
           budget_bytes_) {
      if (!other->ReleaseOneWarm()) return nullptr;
    }
  }
  float* const block = from->Take();
  if (block == nullptr) return nullptr;
  return StateBlock(block, [this, from](float* done) {
    MutexLock giving(&mutex_);
    from->Give(done);
  });
}

}  // namespace switchyard::attention_worker
