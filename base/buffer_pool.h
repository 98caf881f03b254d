// Memory for tensors that come and go with every step: taken, filled, handed
// on, and given back by whoever has it last.
//
// A step's tensors are the same few sizes again and again. Fresh memory of that
// size would be zeroed by the kernel page by page each time.

#ifndef SWITCHYARD_BASE_BUFFER_POOL_H_
#define SWITCHYARD_BASE_BUFFER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/types/span.h"
#include "base/mutex.h"

namespace switchyard {

class BufferPool;

// Owns `size` bytes, not initialised, at an address divisible by 64. Movable;
// goes back to its pool, which it keeps alive, from any thread. Unsynchronised.
class PooledBuffer {
 public:
  PooledBuffer() = default;
  PooledBuffer(PooledBuffer&& other) noexcept { Swap(other); }
  PooledBuffer& operator=(PooledBuffer&& other) noexcept {
    Swap(other);
    return *this;
  }
  ~PooledBuffer();

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  template <typename T = char>
  T* data() {
    return reinterpret_cast<T*>(data_);
  }
  template <typename T = char>
  const T* data() const {
    return reinterpret_cast<const T*>(data_);
  }
  // As whole elements of T.
  template <typename T>
  absl::Span<T> span() {
    return absl::MakeSpan(data<T>(), size_ / sizeof(T));
  }
  template <typename T>
  absl::Span<const T> span() const {
    return absl::MakeConstSpan(data<T>(), size_ / sizeof(T));
  }

 private:
  friend class BufferPool;
  PooledBuffer(std::shared_ptr<BufferPool> pool, char* data, size_t size,
               size_t capacity)
      : pool_(std::move(pool)), data_(data), size_(size), capacity_(capacity) {}
  void Swap(PooledBuffer& other) {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

  std::shared_ptr<BufferPool> pool_;
  char* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

// Thread-safe.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  // What lies idle here takes at most `max_idle_bytes`; the rest goes back to
  // the heap.
  static std::shared_ptr<BufferPool> Create(size_t max_idle_bytes);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // The smallest idle buffer that fits without wasting more than it holds, or a
  // new one.
  PooledBuffer Take(size_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  size_t idle_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class PooledBuffer;
  struct Block {
    char* data;
    size_t capacity;
  };

  explicit BufferPool(size_t max_idle_bytes)
      : max_idle_bytes_(max_idle_bytes) {}
  void GiveBack(Block block) ABSL_LOCKS_EXCLUDED(mutex_);

  const size_t max_idle_bytes_;
  mutable Mutex mutex_;
  std::vector<Block> idle_ ABSL_GUARDED_BY(mutex_);
  size_t idle_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_BUFFER_POOL_H_
