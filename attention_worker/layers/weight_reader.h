// Finds a model's tensors, and vouches for their values.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_WEIGHT_READER_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_WEIGHT_READER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/compute_pool.h"
#include "kernels/matrix.h"
#include "model/checkpoint.h"
#include "model/weight_copies.h"

namespace switchyard::attention_worker {

// Collects the tensors that a set of layers asks for. ReadAll() then reads
// every one once, so that the first request is not the one that waits for the
// disk: into memory of its own, or by touching the mapped pages. It refuses
// values that would poison every sequence, and bytes that are not those that
// were converted.
class WeightReader {
 public:
  // `checkpoint` is not owned and outlives this.
  explicit WeightReader(
      const model::Checkpoint* checkpoint,
      model::WeightPlacement placement = model::WeightPlacement::kMap)
      : checkpoint_(checkpoint),
        copy_(model::CopiesWeights(placement, *checkpoint)) {}

  const model::ModelConfig& config() const { return checkpoint_->config(); }

  // A view of the mapped file, or of the copy that ReadAll() will fill.
  // NOT_FOUND names the tensor; INVALID_ARGUMENT names it and both shapes when
  // it is not [rows, cols]. RESOURCE_EXHAUSTED: no room for copies.
  absl::StatusOr<kernels::WeightView> Matrix(absl::string_view name,
                                             int64_t rows, int64_t cols);
  // A copy as floats, flattened; INVALID_ARGUMENT when there are not `size`.
  absl::StatusOr<std::vector<float>> Vector(absl::string_view name,
                                            int64_t size);

  // Reads all that was asked for. DATA_LOSS names the first tensor (in the
  // order of asking) that holds a NaN or an infinity, and how many, or whose
  // checksum is another. RESOURCE_EXHAUSTED: no memory for copies. `progress`
  // (may be null) is called on the caller's thread with bytes done and in all.
  absl::Status ReadAll(
      ComputePool* pool,
      const std::function<void(int64_t done, int64_t total)>& progress) const;

  // What matrices are views of, if they are copies; null if they are mapped.
  // Outlives them.
  std::unique_ptr<model::WeightCopies> TakeCopies() {
    return std::move(copies_);
  }

 private:
  struct Tensor {
    std::string name;
    kernels::WeightView source;
    kernels::WeightView place;  // its copy; the source if there is none
  };

  absl::Status MakeRoom();
  absl::Status ReadTensor(const Tensor& tensor, ComputePool* pool) const;

  const model::Checkpoint* const checkpoint_;
  const bool copy_;
  std::unique_ptr<model::WeightCopies> copies_;
  std::vector<Tensor> tensors_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_WEIGHT_READER_H_
