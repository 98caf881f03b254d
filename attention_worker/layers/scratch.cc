#include "attention_worker/layers/scratch.h"

#include <algorithm>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

constexpr size_t kLineFloats = AlignedBuffer::kAlignment / sizeof(float);
constexpr size_t kMinBlockFloats = size_t{1} << 16;

}  // namespace

float* Scratch::Floats(int64_t floats) {
  SY_CHECK(floats >= 0);
  const size_t wanted = (static_cast<size_t>(floats) + kLineFloats - 1) /
                        kLineFloats * kLineFloats;
  while (block_ < blocks_.size() && used_ + wanted > blocks_[block_].size()) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    blocks_.emplace_back(std::max(wanted, kMinBlockFloats));
  }
  float* const result = blocks_[block_].data() + used_;
  used_ += wanted;
  taken_ += wanted;
  most_ = std::max(most_, taken_);
  return result;
}

int8_t* Scratch::Bytes(int64_t bytes) {
  constexpr int64_t kFloat = sizeof(float);
  return reinterpret_cast<int8_t*>(Floats((bytes + kFloat - 1) / kFloat));
}

int32_t* Scratch::Ints(int64_t ints) {
  return reinterpret_cast<int32_t*>(Floats(ints));
}

int64_t Scratch::allocated_bytes() const {
  size_t floats = 0;
  for (const AlignedBuffer& block : blocks_) floats += block.size();
  return static_cast<int64_t>(floats * sizeof(float));
}

void Scratch::Return(const Frame& frame) {
  block_ = frame.block_;
  used_ = frame.used_;
  taken_ = frame.taken_;
  if (block_ == 0 && used_ == 0 && blocks_.size() > 1) {
    // It did not fit into one block: next time it will.
    blocks_.clear();
    blocks_.emplace_back(std::max(most_, kMinBlockFloats));
  }
}

}  // namespace switchyard::attention_worker
