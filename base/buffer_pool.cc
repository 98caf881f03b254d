#include "base/buffer_pool.h"

#include <algorithm>
#include <new>

namespace switchyard {
namespace {

constexpr std::align_val_t kAlignment{64};
// Sizes are rounded up to these, so that a step's tensors, whose sizes differ a
// little from step to step, fit into one another's memory.
constexpr size_t kSmallest = 4096;
constexpr size_t kStep = size_t{1} << 20;
// Buffers that lie idle at a time: no more are in flight in a step.
constexpr size_t kMaxIdleBlocks = 64;

size_t CapacityFor(size_t bytes) {
  if (bytes >= kStep) return (bytes + kStep - 1) / kStep * kStep;
  size_t capacity = kSmallest;
  while (capacity < bytes) capacity *= 2;
  return capacity;
}

}  // namespace

PooledBuffer::~PooledBuffer() {
  if (data_ != nullptr) pool_->GiveBack({data_, capacity_});
}

std::shared_ptr<BufferPool> BufferPool::Create(size_t max_idle_bytes) {
  return std::shared_ptr<BufferPool>(new BufferPool(max_idle_bytes));
}

BufferPool::~BufferPool() {
  for (const Block& block : idle_) operator delete(block.data, kAlignment);
}

PooledBuffer BufferPool::Take(size_t bytes) {
  const size_t capacity = CapacityFor(bytes);
  {
    MutexLock lock(&mutex_);
    auto best = idle_.end();
    for (auto it = idle_.begin(); it != idle_.end(); ++it) {
      if (it->capacity < capacity || it->capacity > 2 * capacity) continue;
      if (best == idle_.end() || it->capacity < best->capacity) best = it;
    }
    if (best != idle_.end()) {
      const Block block = *best;
      *best = idle_.back();
      idle_.pop_back();
      idle_bytes_ -= block.capacity;
      return PooledBuffer(shared_from_this(), block.data, bytes,
                          block.capacity);
    }
  }
  return PooledBuffer(shared_from_this(),
                      static_cast<char*>(operator new(capacity, kAlignment)),
                      bytes, capacity);
}

void BufferPool::GiveBack(Block block) {
  {
    MutexLock lock(&mutex_);
    if (idle_.size() < kMaxIdleBlocks &&
        block.capacity <= max_idle_bytes_ - idle_bytes_) {
      idle_.push_back(block);
      idle_bytes_ += block.capacity;
      return;
    }
  }
  operator delete(block.data, kAlignment);
}

size_t BufferPool::idle_bytes() const {
  MutexLock lock(&mutex_);
  return idle_bytes_;
}

}  // namespace switchyard
