#include "experts/expert_slots.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::experts {

absl::StatusOr<std::unique_ptr<ExpertSlots>> ExpertSlots::Create(
    int64_t slot_bytes, int64_t count) {
  SY_CHECK(slot_bytes > 0 && count > 0);
  slot_bytes = (slot_bytes + 63) / 64 * 64;
  SY_ASSIGN_OR_RETURN(std::unique_ptr<HugePageMemory> memory,
                      HugePageMemory::Reserve(slot_bytes * count));
  return std::unique_ptr<ExpertSlots>(
      new ExpertSlots(std::move(memory), slot_bytes, count));
}

ExpertSlots::ExpertSlots(std::unique_ptr<HugePageMemory> memory,
                         int64_t slot_bytes, int64_t count)
    : memory_(std::move(memory)), slot_bytes_(slot_bytes), count_(count) {
  MutexLock lock(&mutex_);
  for (int64_t slot = 0; slot < count; ++slot) free_.push_back(slot);
}

absl::StatusOr<int64_t> ExpertSlots::Take() {
  int64_t slot = 0;
  bool fresh = false;
  {
    MutexLock lock(&mutex_);
    if (free_.empty()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("all places for ", count_, " experts of ", slot_bytes_,
                       " bytes are taken"));
    }
    std::pop_heap(free_.begin(), free_.end(), std::greater<>());
    slot = free_.back();
    free_.pop_back();
    fresh = slot >= touched_;
    touched_ = std::max(touched_, slot + 1);
  }
  if (!fresh) return slot;
  const absl::Status taken =
      memory_->Populate(slot * slot_bytes_, (slot + 1) * slot_bytes_);
  if (taken.ok()) return slot;
  Give(slot);
  return taken;
}

void ExpertSlots::Give(int64_t slot) {
  MutexLock lock(&mutex_);
  free_.push_back(slot);
  std::push_heap(free_.begin(), free_.end(), std::greater<>());
}

}  // namespace switchyard::experts
