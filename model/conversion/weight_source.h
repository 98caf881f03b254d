// Where a conversion's weights come from.

#ifndef SWITCHYARD_MODEL_CONVERSION_WEIGHT_SOURCE_H_
#define SWITCHYARD_MODEL_CONVERSION_WEIGHT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/matrix.h"
#include "model/config.h"

namespace switchyard::model {

// One tensor, as rows of floats. Immutable, so thread-safe. Lives no longer
// than its source.
class SourceTensor {
 public:
  SourceTensor(kernels::DType dtype, int64_t rows, int64_t cols)
      : dtype_(dtype), rows_(rows), cols_(cols) {}
  virtual ~SourceTensor() = default;

  // What the tensor is when it is kept as it is: kBF16, kF16 or kF32, which
  // holds all its values exactly (of FP8: kBF16, which rounds them).
  kernels::DType dtype() const { return dtype_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }

  // out[count, cols()]: rows [begin, begin + count).
  virtual void ReadRows(int64_t begin, int64_t count, float* out) const = 0;
  // Those rows will not be read again: what memory they took may go.
  virtual void Release(int64_t begin, int64_t count) const = 0;

 private:
  const kernels::DType dtype_;
  const int64_t rows_;
  const int64_t cols_;
};

// Of a mapped file. REQUIRES: !IsQuantized(view.dtype).
std::unique_ptr<SourceTensor> NewViewedTensor(const kernels::WeightView& view);

struct SourceExpert {
  std::unique_ptr<SourceTensor> gate_proj;  // [I, H]
  std::unique_ptr<SourceTensor> up_proj;    // [I, H]
  std::unique_ptr<SourceTensor> down_proj;  // [H, I]
};

// A whole model's weights, under the names of model/weight_names.h.
// Thread-safe.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  virtual const ModelConfig& config() const = 0;
  virtual bool has_mtp() const = 0;
  // 64 lower-case hex digits that name these weights.
  virtual const std::string& fingerprint() const = 0;
  // Of the experts, as safetensors spells it; for people.
  virtual const std::string& dtype_name() const = 0;

  // One dimension counts as [1, n], more are flattened to [first, rest].
  // NOT_FOUND or INVALID_ARGUMENT name file and tensor.
  virtual absl::StatusOr<std::unique_ptr<SourceTensor>> Find(
      absl::string_view name) const = 0;
  // REQUIRES: the layer has experts.
  virtual absl::StatusOr<SourceExpert> FindExpert(int layer,
                                                  int expert) const = 0;
};

// Opens a directory in Hugging Face's layout: BF16, F16 and F32, with separate
// or fused experts; or F8_E4M3 with a scale for each block of 128x128
// (config.json's quantization_config; experts separate). As Checkpoint::Open
// otherwise. INVALID_ARGUMENT: another quantisation, or a directory that is
// converted already.
absl::StatusOr<std::unique_ptr<WeightSource>> OpenWeightSource(
    const std::string& directory);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_WEIGHT_SOURCE_H_
