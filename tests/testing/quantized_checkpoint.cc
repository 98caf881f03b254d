#include "tests/testing/quantized_checkpoint.h"

#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/aligned_buffer.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "kernels/kernel_table.h"
#include "kernels/quantized.h"
#include "kernels/weight_codec.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::testing {
namespace {

using kernels::DType;
using kernels::WeightView;

bool StaysPlain(absl::string_view name) {
  return name == model::kEmbeddingName ||
         absl::EndsWith(name, "mlp.gate.weight") ||
         absl::EndsWith(name, "shared_expert_gate.weight") ||
         absl::EndsWith(name, "in_proj_ba.weight") ||
         absl::EndsWith(name, "conv1d.weight");
}

class QuantizedCheckpoint final : public model::Checkpoint {
 public:
  QuantizedCheckpoint(std::unique_ptr<model::Checkpoint> original,
                      DType experts, DType dense)
      : original_(std::move(original)),
        experts_(experts),
        dense_(dense),
        fingerprint_(absl::StrCat(original_->fingerprint(), "-",
                                  std::string(model::DTypeName(experts)),
                                  std::string(model::DTypeName(dense)))) {}

  const std::string& directory() const override {
    return original_->directory();
  }
  const model::ModelConfig& config() const override {
    return original_->config();
  }
  const model::GenerationConfig& generation_config() const override {
    return original_->generation_config();
  }
  bool has_mtp() const override { return original_->has_mtp(); }
  int num_expert_layers() const override {
    return original_->num_expert_layers();
  }
  bool LayerHasExperts(int layer) const override {
    return original_->LayerHasExperts(layer);
  }
  absl::StatusOr<WeightView> Find(absl::string_view name) const override {
    SY_ASSIGN_OR_RETURN(const WeightView view, original_->Find(name));
    if (dense_ == DType::kF32 || view.rows == 1 || StaysPlain(name)) {
      return view;
    }
    return Quantized(std::string(name), view, dense_);
  }
  absl::StatusOr<std::vector<float>> FindFloats(
      absl::string_view name) const override {
    return original_->FindFloats(name);
  }
  absl::StatusOr<model::ExpertWeights> FindExpert(int layer,
                                                  int expert) const override {
    SY_ASSIGN_OR_RETURN(const model::ExpertWeights plain,
                        original_->FindExpert(layer, expert));
    if (experts_ == DType::kF32) return plain;
    const std::string key = absl::StrCat("expert ", layer, " ", expert, " ");
    return model::ExpertWeights{
        Quantized(key + "gate", plain.gate_proj, experts_),
        Quantized(key + "up", plain.up_proj, experts_),
        Quantized(key + "down", plain.down_proj, experts_)};
  }
  DType expert_dtype() const override {
    return experts_ == DType::kF32 ? original_->expert_dtype() : experts_;
  }
  void ReadBytes(const WeightView& view, void* out) const override {
    std::memcpy(out, view.data, model::WeightBytes(view));
  }
  bool has_checksums() const override { return false; }
  absl::Status VerifyTensor(absl::string_view) const override {
    return absl::OkStatus();
  }
  absl::Status VerifyExpert(int, int) const override {
    return absl::OkStatus();
  }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  struct Matrix {
    WeightView view;
    std::shared_ptr<const void> owner;
  };

  WeightView Quantized(const std::string& key, const WeightView& view,
                       DType dtype) const {
    MutexLock lock(&mutex_);
    Matrix& matrix = matrices_[key];
    if (matrix.owner == nullptr) {
      matrix.view = QuantizeWeights(view, dtype, &matrix.owner);
    }
    return matrix.view;
  }

  const std::unique_ptr<model::Checkpoint> original_;
  const DType experts_;
  const DType dense_;
  const std::string fingerprint_;
  mutable Mutex mutex_;
  mutable std::map<std::string, Matrix> matrices_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

WeightView QuantizeWeights(const WeightView& weights, DType dtype,
                           std::shared_ptr<const void>* owner) {
  std::vector<float> values(weights.rows * weights.cols);
  model::WidenWeights(weights, values.data());
  const int64_t bytes = kernels::WeightBytes(dtype, weights.rows, weights.cols);
  auto buffer = std::make_shared<AlignedBuffer>((bytes + sizeof(float) - 1) /
                                                sizeof(float));
  if (dtype == DType::kBF16Dot) {
    kernels::Kernels().round_to_bf16(
        values.data(), weights.rows * weights.cols,
        reinterpret_cast<uint16_t*>(buffer->data()));
    const WeightView view{buffer->data(), dtype, weights.rows, weights.cols};
    *owner = std::move(buffer);
    return view;
  }
  uint8_t* panel = reinterpret_cast<uint8_t*>(buffer->data());
  for (int64_t r = 0; r < weights.rows; r += kernels::kPanelRows) {
    const int64_t rows = std::min(kernels::kPanelRows, weights.rows - r);
    SY_CHECK(QuantizePanel(dtype, values.data() + r * weights.cols, rows,
                           weights.cols, panel));
    panel += kernels::PanelBytes(dtype, weights.cols);
  }
  const WeightView view{buffer->data(), dtype, weights.rows, weights.cols};
  *owner = std::move(buffer);
  return view;
}

std::unique_ptr<model::Checkpoint> QuantizeCheckpoint(
    std::unique_ptr<model::Checkpoint> original, DType experts, DType dense) {
  return std::make_unique<QuantizedCheckpoint>(std::move(original), experts,
                                               dense);
}

}  // namespace switchyard::testing
