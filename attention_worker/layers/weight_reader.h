// Finds a model's tensors, and vouches for their values.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_WEIGHT_READER_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_WEIGHT_READER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/compute_pool.h"
#include "kernels/matrix.h"
#include "model/checkpoint.h"

namespace switchyard::attention_worker {

// Collects the tensors that a set of layers asks for; ReadAll() then touches
// every page of them once, so that the first request is not the one that waits
// for the disk, and refuses values that would poison every sequence.
class WeightReader {
 public:
  // `checkpoint` is not owned and outlives this.
  explicit WeightReader(const model::Checkpoint* checkpoint)
      : checkpoint_(checkpoint) {}

  const model::ModelConfig& config() const { return checkpoint_->config(); }

  // A view of the mapped file. NOT_FOUND names the tensor; INVALID_ARGUMENT
  // names it and both shapes when it is not [rows, cols].
  absl::StatusOr<kernels::WeightView> Matrix(absl::string_view name,
                                             int64_t rows, int64_t cols);
  // A copy as floats, flattened; INVALID_ARGUMENT when there are not `size`.
  absl::StatusOr<std::vector<float>> Vector(absl::string_view name,
                                            int64_t size);

  // Reads all that was asked for. DATA_LOSS names the first tensor (in the
  // order of asking) that holds a NaN or an infinity, and how many. `progress`
  // (may be null) is called on the caller's thread with bytes done and in all.
  absl::Status ReadAll(
      ComputePool* pool,
      const std::function<void(int64_t done, int64_t total)>& progress) const;

 private:
  const model::Checkpoint* const checkpoint_;
  std::vector<std::pair<std::string, kernels::WeightView>> tensors_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_WEIGHT_READER_H_
