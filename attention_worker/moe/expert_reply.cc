#include "attention_worker/moe/expert_reply.h"

#include <cstdint>
#include <utility>

#include "base/check.h"

namespace switchyard::attention_worker {

ExpertReply::ExpertReply(PooledBuffer outputs) : floats_(std::move(outputs)) {
  SY_CHECK(floats_.size() % sizeof(float) == 0);
}

ExpertReply::ExpertReply(BytePieces outputs) : bytes_(std::move(outputs)) {
  SY_CHECK(bytes_.size() % sizeof(float) == 0);
}

size_t ExpertReply::num_floats() const {
  return (floats_.size() + bytes_.size()) / sizeof(float);
}

absl::Span<const float> ExpertReply::Outputs(BufferPool* pool) {
  if (bytes_.size() == 0) return std::as_const(floats_).span<float>();
  const char* const together = bytes_.Together(0, bytes_.size());
  if (together != nullptr &&
      reinterpret_cast<uintptr_t>(together) % alignof(float) == 0) {
    return absl::MakeConstSpan(reinterpret_cast<const float*>(together),
                               num_floats());
  }
  floats_ = pool->Take(bytes_.size());
  bytes_.CopyTo(0, bytes_.size(), floats_.data());
  bytes_ = BytePieces();
  return std::as_const(floats_).span<float>();
}

}  // namespace switchyard::attention_worker
