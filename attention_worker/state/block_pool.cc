#include "attention_worker/state/block_pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

// Forgets the whole memory pages inside a block. Those at its ends may be
// shared with its neighbours.
void Forget(float* block, int64_t bytes) {
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin =
      (reinterpret_cast<uintptr_t>(block) + page - 1) / page * page;
  const uintptr_t end =
      (reinterpret_cast<uintptr_t>(block) + static_cast<uintptr_t>(bytes)) /
      page * page;
  if (begin >= end) return;
  SY_CHECK(
      madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED) == 0);
}

}  // namespace

absl::StatusOr<BlockPool> BlockPool::Create(int64_t block_floats,
                                            int64_t max_blocks) {
  SY_CHECK(block_floats >= 0 && max_blocks >= 0);
  const int64_t floats = block_floats * max_blocks;
  SY_ASSIGN_OR_RETURN(ReservedFloats memory,
                      ReservedFloats::Create(floats, /*dense_floats=*/floats));
  return BlockPool(block_floats, max_blocks, std::move(memory));
}

BlockPool::BlockPool(int64_t block_floats, int64_t max_blocks,
                     ReservedFloats memory)
    : block_floats_(block_floats),
      max_blocks_(max_blocks),
      memory_(std::move(memory)) {}

int64_t BlockPool::block_bytes() const {
  return block_floats_ * static_cast<int64_t>(sizeof(float));
}

float* BlockPool::Take() {
  float* block = nullptr;
  if (!warm_.empty()) {
    block = warm_.back();
    warm_.pop_back();
  } else if (!cold_.empty()) {
    block = cold_.back();
    cold_.pop_back();
  } else if (fresh_ < max_blocks_) {
    block = memory_.data() + fresh_++ * block_floats_;
  } else {
    return nullptr;
  }
  ++used_;
  return block;
}

void BlockPool::Give(float* block) {
  SY_CHECK(used_ > 0);
  --used_;
  warm_.push_back(block);
}

bool BlockPool::ReleaseOneWarm() {
  if (warm_.empty()) return false;
  Forget(warm_.back(), block_bytes());
  cold_.push_back(warm_.back());
  warm_.pop_back();
  return true;
}

}  // namespace switchyard::attention_worker
