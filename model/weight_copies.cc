#include "model/weight_copies.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

// Matrices begin at a cache line, as quantised ones have to.
constexpr int64_t kAlignment = 64;
// Memory that one thread takes at a time.
constexpr int64_t kPopulateBytes = int64_t{64} << 20;
// Less in large pages is worth a warning.
constexpr int64_t kGoodPercent = 90;

}  // namespace

absl::StatusOr<WeightPlacement> ParseWeightPlacement(absl::string_view text) {
  if (text == "auto") return WeightPlacement::kAuto;
  if (text == "copy") return WeightPlacement::kCopy;
  if (text == "map") return WeightPlacement::kMap;
  return absl::InvalidArgumentError(
      absl::StrCat("--weights is '", text, "'; it must be auto, copy or map"));
}

bool CopiesWeights(WeightPlacement placement, const Checkpoint& checkpoint) {
  return placement == WeightPlacement::kCopy ||
         (placement == WeightPlacement::kAuto && checkpoint.has_checksums());
}

absl::StatusOr<std::unique_ptr<WeightCopies>> WeightCopies::Create(
    const Checkpoint* checkpoint, int64_t max_bytes) {
  SY_ASSIGN_OR_RETURN(
      std::unique_ptr<HugePageMemory> memory,
      HugePageMemory::Reserve(std::max<int64_t>(max_bytes, kAlignment)));
  return std::unique_ptr<WeightCopies>(
      new WeightCopies(checkpoint, std::move(memory)));
}

int64_t WeightCopies::RoomFor(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

kernels::WeightView WeightCopies::Place(const kernels::WeightView& source) {
  const auto [it, is_new] = placed_.try_emplace(source.data, source);
  if (!is_new) {
    SY_CHECK(it->second.rows == source.rows && it->second.cols == source.cols);
    return it->second;
  }
  SY_CHECK(used_ + WeightBytes(source) <= memory_->size());
  it->second.data = memory_->data() + used_;
  used_ += RoomFor(WeightBytes(source));
  return it->second;
}

absl::Status WeightCopies::Allocate(ComputePool* pool) const {
  const int64_t used = std::min(used_, memory_->size());
  const int64_t pieces = (used + kPopulateBytes - 1) / kPopulateBytes;
  Mutex mutex;
  absl::Status status;
  pool->ParallelFor(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const absl::Status populated = memory_->Populate(
          i * kPopulateBytes, std::min((i + 1) * kPopulateBytes, used));
      MutexLock lock(&mutex);
      status.Update(populated);
    }
  });
  return status;
}

void WeightCopies::Copy(const kernels::WeightView& source,
                        const kernels::WeightView& to) const {
  const auto* const place = static_cast<const uint8_t*>(to.data);
  SY_CHECK(place >= memory_->data() &&
           place + WeightBytes(source) <= memory_->data() + memory_->size());
  checkpoint_.ReadBytes(source, const_cast<uint8_t*>(place));
}

void WeightCopies::LogPages(absl::string_view what) const {
  const int64_t huge = std::min(memory_->huge_bytes(), used_);
  const std::string text =
      absl::StrCat(what, ": ", used_ >> 20, " MiB copied to memory");
  if (huge < 0) {
    LogInfo(text);
    return;
  }
  const int64_t percent = used_ == 0 ? 100 : huge * 100 / used_;
  // The last page is small if it is not filled.
  if (percent >= kGoodPercent || used_ - huge <= HugePageMemory::kPageBytes) {
    LogInfo(absl::StrCat(text, ", ", percent, "% of it in large pages"));
    return;
  }
  LogWarning(absl::StrCat(
      text, ", only ", percent,
      "% of it in large pages: reading them takes more time. Is "
      "/sys/kernel/mm/transparent_hugepage/enabled 'never', or memory "
      "fragmented?"));
}

}  // namespace switchyard::model
