#include "model/conversion/weight_source.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/checkpoint.h"
#include "model/checkpoint_base.h"
#include "model/conversion/fp8_source.h"
#include "model/manifest.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::WeightView;

// A view of a checkpoint.
class ViewedTensor final : public SourceTensor {
 public:
  explicit ViewedTensor(const WeightView& view)
      : SourceTensor(view.dtype, view.rows, view.cols), view_(view) {}

  void ReadRows(int64_t begin, int64_t count, float* out) const override {
    WidenWeights(Rows(begin, count), out);
  }
  void Release(int64_t begin, int64_t count) const override {
    const WeightView rows = Rows(begin, count);
    ReleaseMappedPages(rows.data, WeightBytes(rows));
  }

 private:
  WeightView Rows(int64_t begin, int64_t count) const {
    const int64_t row_bytes =
        view_.cols * static_cast<int64_t>(kernels::DTypeBytes(view_.dtype));
    return {static_cast<const uint8_t*>(view_.data) + begin * row_bytes,
            view_.dtype, count, view_.cols};
  }
  const WeightView view_;
};

class CheckpointSource final : public WeightSource {
 public:
  explicit CheckpointSource(std::unique_ptr<Checkpoint> checkpoint)
      : checkpoint_(std::move(checkpoint)),
        dtype_name_(DTypeName(checkpoint_->expert_dtype())) {}

  const ModelConfig& config() const override { return checkpoint_->config(); }
  bool has_mtp() const override { return checkpoint_->has_mtp(); }
  const std::string& fingerprint() const override {
    return checkpoint_->fingerprint();
  }
  const std::string& dtype_name() const override { return dtype_name_; }

  absl::StatusOr<std::unique_ptr<SourceTensor>> Find(
      absl::string_view name) const override {
    SY_ASSIGN_OR_RETURN(const WeightView view, checkpoint_->Find(name));
    return NewViewedTensor(view);
  }
  absl::StatusOr<SourceExpert> FindExpert(int layer,
                                          int expert) const override {
    SY_ASSIGN_OR_RETURN(const ExpertWeights weights,
                        checkpoint_->FindExpert(layer, expert));
    return SourceExpert{NewViewedTensor(weights.gate_proj),
                        NewViewedTensor(weights.up_proj),
                        NewViewedTensor(weights.down_proj)};
  }

 private:
  const std::unique_ptr<Checkpoint> checkpoint_;
  const std::string dtype_name_;
};

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

absl::StatusOr<bool> HasQuantizationConfig(const std::string& directory) {
  const std::string path = absl::StrCat(directory, "/", kConfigFile);
  SY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  SY_ASSIGN_OR_RETURN(const Json root,
                      ParseJson(text, {.max_bytes = kMaxConfigBytes}));
  return root.is_object() && root.contains("quantization_config") &&
         !root["quantization_config"].is_null();
}

}  // namespace

std::unique_ptr<SourceTensor> NewViewedTensor(const WeightView& view) {
  return std::make_unique<ViewedTensor>(view);
}

absl::StatusOr<std::unique_ptr<WeightSource>> OpenWeightSource(
    const std::string& directory) {
  if (FileExists(absl::StrCat(directory, "/", kManifestFile))) {
    return absl::InvalidArgumentError(absl::StrCat(
        directory,
        ": is converted already; rounding twice would lose more: convert the "
        "model that it was made of"));
  }
  // Says what is wrong with the directory or its config.json.
  SY_RETURN_IF_ERROR(
      ReadModelConfig(directory, QuantizationConfig::kIgnore).status());
  SY_ASSIGN_OR_RETURN(const bool quantized, HasQuantizationConfig(directory));
  if (quantized) return OpenFp8Source(directory);
  SY_ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(directory));
  return std::make_unique<CheckpointSource>(std::move(checkpoint));
}

}  // namespace switchyard::model
