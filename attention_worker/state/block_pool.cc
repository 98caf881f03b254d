#include "attention_worker/state/block_pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

// Advice on the whole memory pages inside a block. Those at its ends may be
// shared with its neighbours. False if the kernel does not take it.
bool Advise(float* block, int64_t bytes, int advice) {
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin =
      (reinterpret_cast<uintptr_t>(block) + page - 1) / page * page;
  const uintptr_t end =
      (reinterpret_cast<uintptr_t>(block) + static_cast<uintptr_t>(bytes)) /
      page * page;
  return begin >= end ||
         madvise(reinterpret_cast<void*>(begin), end - begin, advice) == 0;
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
    (void)Advise(block, block_bytes(), MADV_HUGEPAGE);
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
  SY_CHECK(Advise(warm_.back(), block_bytes(), MADV_DONTNEED));
  // Or the kernel may join what is left around it to a huge page again, which
  // takes the memory back.
  (void)Advise(warm_.back(), block_bytes(), MADV_NOHUGEPAGE);
  cold_.push_back(warm_.back());
  warm_.pop_back();
  return true;
}

}  // namespace switchyard::attention_worker
