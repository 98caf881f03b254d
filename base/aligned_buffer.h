// Floats on a cache line's boundary, for activations, state and scratch.

#ifndef SWITCHYARD_BASE_ALIGNED_BUFFER_H_
#define SWITCHYARD_BASE_ALIGNED_BUFFER_H_

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

#include "absl/types/span.h"

namespace switchyard {

// Owns `size` floats, zero at first, at an address divisible by 64: a cache
// line, and the widest vector register. Movable, not copyable: copies of this
// size are written out where they happen. Unsynchronised.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;  // bytes

  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size) : data_(Allocate(size)), size_(size) {}
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~AlignedBuffer() {
    if (data_ != nullptr) operator delete (data_, std::align_val_t{kAlignment});
  }

  float* data() { return data_; }
  const float* data() const { return data_; }
  size_t size() const { return size_; }  // floats
  bool empty() const { return size_ == 0; }
  float& operator[](size_t i) { return data_[i]; }
  float operator[](size_t i) const { return data_[i]; }
  float* begin() { return data_; }
  float* end() { return data_ + size_; }
  const float* begin() const { return data_; }
  const float* end() const { return data_ + size_; }
  absl::Span<float> span() { return {data_, size_}; }
  absl::Span<const float> span() const { return {data_, size_}; }

 private:
  static float* Allocate(size_t size) {
    if (size == 0) return nullptr;
    float* const data = static_cast<float*>(operator new (
        size * sizeof(float), std::align_val_t{kAlignment}));
    std::fill_n(data, size, 0.0f);
    return data;
  }

  float* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_ALIGNED_BUFFER_H_
