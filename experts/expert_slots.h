// Memory for experts that come and go: places of one size, in large pages.
//
// Above: expert_engine.cc.

#ifndef SWITCHYARD_EXPERTS_EXPERT_SLOTS_H_
#define SWITCHYARD_EXPERTS_EXPERT_SLOTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "base/huge_page_memory.h"
#include "base/mutex.h"

namespace switchyard::experts {

// A place's memory is taken when it is used for the first time, and kept for
// the next expert. Thread-safe.
class ExpertSlots {
 public:
  // `slot_bytes` is rounded up to 64. RESOURCE_EXHAUSTED: no such range of
  // addresses.
  static absl::StatusOr<std::unique_ptr<ExpertSlots>> Create(int64_t slot_bytes,
                                                             int64_t count);

  // A free place, the lowest one. RESOURCE_EXHAUSTED: none is free, or there is
  // no memory.
  absl::StatusOr<int64_t> Take() ABSL_LOCKS_EXCLUDED(mutex_);
  void Give(int64_t slot) ABSL_LOCKS_EXCLUDED(mutex_);

  // Begins at a multiple of 64 bytes.
  uint8_t* data(int64_t slot) const {
    return memory_->data() + slot * slot_bytes_;
  }
  int64_t slot_bytes() const { return slot_bytes_; }
  int64_t count() const { return count_; }

 private:
  ExpertSlots(std::unique_ptr<HugePageMemory> memory, int64_t slot_bytes,
              int64_t count);

  const std::unique_ptr<HugePageMemory> memory_;
  const int64_t slot_bytes_;
  const int64_t count_;
  Mutex mutex_;
  std::vector<int64_t> free_ ABSL_GUARDED_BY(mutex_);  // a heap, lowest first
  // Below this, memory was taken already.
  int64_t touched_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::experts

#endif  // SWITCHYARD_EXPERTS_EXPERT_SLOTS_H_
