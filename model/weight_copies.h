// A checkpoint's weights in memory of this process's own: in large pages, and
// never read from disk again.

#ifndef SWITCHYARD_MODEL_WEIGHT_COPIES_H_
#define SWITCHYARD_MODEL_WEIGHT_COPIES_H_

#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/compute_pool.h"
#include "base/huge_page_memory.h"
#include "kernels/matrix.h"
#include "model/checkpoint.h"

namespace switchyard::model {

// Where weights live while they are used.
enum class WeightPlacement {
  kAuto,  // kCopy for a converted checkpoint, else kMap
  kCopy,  // in this process's memory, in large pages: fastest
  kMap,   // in the mapped files: processes of one machine share them
};

// "auto", "copy", "map". INVALID_ARGUMENT names the three.
absl::StatusOr<WeightPlacement> ParseWeightPlacement(absl::string_view text);

// Whether weights of `checkpoint` are to be copied.
bool CopiesWeights(WeightPlacement placement, const Checkpoint& checkpoint);

// Life: Create; Place for every matrix, on one thread; Allocate; Copy, from any
// threads; then the copies are read by anybody, as long as this lives.
class WeightCopies {
 public:
  // `checkpoint` is not owned and outlives this. Room for matrices of
  // `max_bytes` in all, each rounded up to 64; it takes addresses only.
  // RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<WeightCopies>> Create(
      const Checkpoint* checkpoint, int64_t max_bytes);

  // What max_bytes must hold for a matrix of so many bytes.
  static int64_t RoomFor(int64_t bytes);

  // Where the copy of `source` will be; the same place for the same source.
  kernels::WeightView Place(const kernels::WeightView& source);

  // Takes the memory for all that was placed. RESOURCE_EXHAUSTED.
  absl::Status Allocate(ComputePool* pool) const;

  // Copies `source`, a view of the checkpoint that lies where a placed one does
  // or rows within one, to `to`, its place, and lets the file's pages go.
  void Copy(const kernels::WeightView& source,
            const kernels::WeightView& to) const;

  int64_t bytes() const { return used_; }

  // "1234 MiB in memory, 99% of it in large pages"; a warning, with what to do,
  // when it is much less.
  void LogPages(absl::string_view what) const;

 private:
  WeightCopies(const Checkpoint* checkpoint,
               std::unique_ptr<HugePageMemory> memory)
      : checkpoint_(*checkpoint), memory_(std::move(memory)) {}

  const Checkpoint& checkpoint_;
  const std::unique_ptr<HugePageMemory> memory_;
  int64_t used_ = 0;
  absl::flat_hash_map<const void*, kernels::WeightView> placed_;
};

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_WEIGHT_COPIES_H_
