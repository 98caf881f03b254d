// A checkpoint in Hugging Face's layout: views of its tensors, as they are.

#include <sys/mman.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "model/checkpoint_base.h"
#include "model/fingerprint.h"
#include "model/safetensors.h"
#include "model/tensor_files.h"
#include "model/weight_formats.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::WeightView;

// While it lives, the kernel reads only the pages of these files that are
// touched: a sample of every tensor must not read the model around it.
class ScopedRandomAccess {
 public:
  explicit ScopedRandomAccess(
      const std::vector<std::unique_ptr<SafetensorsFile>>& files)
      : files_(files) {
    Advise(MADV_RANDOM);
  }
  ~ScopedRandomAccess() { Advise(MADV_NORMAL); }
  ScopedRandomAccess(const ScopedRandomAccess&) = delete;
  ScopedRandomAccess& operator=(const ScopedRandomAccess&) = delete;

 private:
  // Advice: that the kernel may refuse it does not matter.
  void Advise(int advice) const {
    for (const auto& file : files_) {
      const absl::Span<const uint8_t> bytes = file->bytes();
      madvise(const_cast<uint8_t*>(bytes.data()), bytes.size(), advice);
    }
  }
  const std::vector<std::unique_ptr<SafetensorsFile>>& files_;
};

// Rows [begin, begin + count) of a view.
WeightView RowsOf(const WeightView& view, int64_t begin, int64_t count) {
  const int64_t row_bytes =
      view.cols * static_cast<int64_t>(kernels::DTypeBytes(view.dtype));
  return {static_cast<const uint8_t*>(view.data) + begin * row_bytes,
          view.dtype, count, view.cols};
}

class HuggingFaceCheckpoint final : public CheckpointBase {
 public:
  HuggingFaceCheckpoint(std::string directory, Activations activations)
      : CheckpointBase(std::move(directory)), activations_(activations) {}

  absl::Status Open();

  absl::StatusOr<WeightView> Find(absl::string_view tensor_name) const override;
  absl::StatusOr<ExpertWeights> FindExpert(int layer,
                                           int expert) const override;
  kernels::DType expert_dtype() const override { return expert_dtype_; }
  bool has_checksums() const override { return false; }
  absl::Status VerifyTensor(absl::string_view) const override {
    return absl::OkStatus();
  }
  absl::Status VerifyExpert(int, int) const override {
    return absl::OkStatus();
  }

 private:
  absl::Status CheckTensors();
  absl::Status CheckTensor(const std::string& name,
                           absl::Span<const int64_t> shape) const;
  absl::Status ComputeFingerprint();
  void LogWhatIsThere(int64_t expected) const;
  // In the fingerprint's order and form.
  absl::Status ForEachExpectedTensor(
      absl::FunctionRef<void(const std::string& name,
                             const WeightView& weights)>
          visit) const;

  absl::Status CheckActivations() const;

  const Activations activations_;
  std::unique_ptr<TensorFiles> files_;
  std::vector<ExpertForm> expert_forms_;  // [num_expert_layers]
  kernels::DType expert_dtype_ = kernels::DType::kF32;
};

absl::Status HuggingFaceCheckpoint::Open() {
  SY_RETURN_IF_ERROR(ReadConfigs(QuantizationConfig::kRefuse));
  SY_ASSIGN_OR_RETURN(files_, TensorFiles::Open(directory_));
  SY_RETURN_IF_ERROR(CheckTensors());
  SY_RETURN_IF_ERROR(CheckActivations());
  return ComputeFingerprint();
}

absl::Status HuggingFaceCheckpoint::CheckActivations() const {
  if (activations_ == Activations::kAuto) return absl::OkStatus();
  bool found = false;
  SY_RETURN_IF_ERROR(
      ForEachExpectedTensor([&](const std::string&, const WeightView& weights) {
        found = found || weights.dtype == kernels::DType::kBF16Dot;
      }));
  if (found) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      directory_,
      ": has no BF16 matrix, which is what --activations=bfloat16 is for; run "
      "`switchyard convert --format bf16dot`"));
}

absl::Status HuggingFaceCheckpoint::CheckTensor(
    const std::string& name, absl::Span<const int64_t> shape) const {
  const SafetensorsFile* const found = files_->FileOf(name);
  if (found == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(directory_, ": no file holds tensor ", name, " of shape ",
                     FormatShape(shape), ", which ", kConfigFile, " calls for",
                     absl::StartsWith(name, kMtpPrefix)
                         ? " because other mtp.* tensors are there"
                         : ""));
  }
  const SafetensorsFile& file = *found;
  const SafetensorsTensor& tensor = *file.Find(name);
  if (shape != absl::MakeConstSpan(tensor.shape)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": tensor ", name, " has shape ",
                     FormatShape(tensor.shape), "; ", kConfigFile,
                     " calls for ", FormatShape(shape)));
  }
  return file.View(name).status();  // dtype and alignment
}

absl::Status HuggingFaceCheckpoint::CheckTensors() {
  for (const auto& [name, file] : files_->tensors()) {
    has_mtp_ = has_mtp_ || absl::StartsWith(name, kMtpPrefix);
  }
  int64_t expected = 0;
  const auto check = [&](const std::string& name,
                         absl::Span<const int64_t> shape) {
    ++expected;
    return CheckTensor(name, shape);
  };
  SY_RETURN_IF_ERROR(ForEachNonExpertWeight(config_, has_mtp_, check));
  for (int layer = 0; layer < num_expert_layers(); ++layer) {
    expert_forms_.push_back(files_->FileOf(FusedGateUpName(config_, layer)) !=
                                    nullptr
                                ? ExpertForm::kFused
                                : ExpertForm::kSeparate);
    if (!LayerHasExperts(layer)) continue;
    SY_RETURN_IF_ERROR(
        ForEachExpertWeight(config_, layer, expert_forms_.back(), check));
  }
  for (int layer = 0; layer < num_expert_layers(); ++layer) {
    if (!LayerHasExperts(layer)) continue;
    SY_ASSIGN_OR_RETURN(const ExpertWeights first, FindExpert(layer, 0));
    expert_dtype_ = first.gate_proj.dtype;
    break;
  }
  LogWhatIsThere(expected);
  return absl::OkStatus();
}

void HuggingFaceCheckpoint::LogWhatIsThere(int64_t expected) const {
  const int64_t ignored = static_cast<int64_t>(files_->tensors().size()) +
                          files_->num_unindexed() - expected;
  LogInfo(absl::StrCat(
      directory_, ": ", expected, " tensors in ", files_->files().size(),
      " file(s), ", has_mtp_ ? "with" : "without", " MTP head",
      ignored == 0
          ? ""
          : absl::StrCat("; ", ignored, " other tensors are ignored")));
}

absl::Status HuggingFaceCheckpoint::ForEachExpectedTensor(
    absl::FunctionRef<void(const std::string& name, const WeightView& weights)>
        visit) const {
  SY_RETURN_IF_ERROR(ForEachNonExpertWeight(
      config_, has_mtp_,
      [&](const std::string& name, absl::Span<const int64_t>) -> absl::Status {
        SY_ASSIGN_OR_RETURN(const WeightView view, Find(name));
        visit(name, view);
        return absl::OkStatus();
      }));
  for (int layer = 0; layer < num_expert_layers(); ++layer) {
    if (!LayerHasExperts(layer)) continue;
    for (int e = 0; e < config_.num_experts; ++e) {
      SY_ASSIGN_OR_RETURN(const ExpertWeights expert, FindExpert(layer, e));
      const ExpertNames names = SeparateExpertNames(config_, layer, e);
      visit(names.gate_proj, expert.gate_proj);
      visit(names.up_proj, expert.up_proj);
      visit(names.down_proj, expert.down_proj);
    }
  }
  return absl::OkStatus();
}

absl::Status HuggingFaceCheckpoint::ComputeFingerprint() {
  const ScopedRandomAccess random_access(files_->files());
  SY_RETURN_IF_ERROR(
      ForEachExpectedTensor([](const std::string&, const WeightView& weights) {
        PrefetchFingerprintSample(weights);
      }));
  FingerprintBuilder builder(config_);
  SY_RETURN_IF_ERROR(ForEachExpectedTensor(
      [&](const std::string& name, const WeightView& weights) {
        builder.Add(name, weights);
      }));
  fingerprint_ = builder.Finish();
  return absl::OkStatus();
}

absl::StatusOr<WeightView> HuggingFaceCheckpoint::Find(
    absl::string_view tensor_name) const {
  const bool dot = activations_ == Activations::kBFloat16 &&
                   KindOf(tensor_name) != TensorKind::kOther;
  // A tied head is the embedding, even where a file carries a copy of it.
  if (config_.tie_word_embeddings && tensor_name == kLmHeadName) {
    tensor_name = kEmbeddingName;
  }
  const SafetensorsFile* const file = files_->FileOf(tensor_name);
  if (file == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(directory_, ": no file holds tensor ", tensor_name));
  }
  SY_ASSIGN_OR_RETURN(WeightView view, file->View(tensor_name));
  if (dot && view.dtype == kernels::DType::kBF16) {
    view.dtype = kernels::DType::kBF16Dot;
  }
  return view;
}

absl::StatusOr<ExpertWeights> HuggingFaceCheckpoint::FindExpert(
    int layer, int expert) const {
  SY_CHECK(LayerHasExperts(layer));
  SY_CHECK(expert >= 0 && expert < config_.num_experts);
  ExpertWeights weights;
  if (expert_forms_[layer] == ExpertForm::kSeparate) {
    const ExpertNames names = SeparateExpertNames(config_, layer, expert);
    SY_ASSIGN_OR_RETURN(weights.gate_proj, Find(names.gate_proj));
    SY_ASSIGN_OR_RETURN(weights.up_proj, Find(names.up_proj));
    SY_ASSIGN_OR_RETURN(weights.down_proj, Find(names.down_proj));
    return weights;
  }
  const int64_t H = config_.hidden_size;
  const int64_t I = config_.moe_intermediate_size;
  // Find flattened [E, 2I, H] to [E, 2I * H] and [E, H, I] to [E, H * I].
  SY_ASSIGN_OR_RETURN(WeightView gate_up,
                      Find(FusedGateUpName(config_, layer)));
  SY_ASSIGN_OR_RETURN(WeightView down, Find(FusedDownName(config_, layer)));
  WeightView mine = RowsOf(gate_up, expert, 1);
  mine.rows = 2 * I;
  mine.cols = H;
  weights.gate_proj = RowsOf(mine, 0, I);
  weights.up_proj = RowsOf(mine, I, I);
  weights.down_proj = RowsOf(down, expert, 1);
  weights.down_proj.rows = H;
  weights.down_proj.cols = I;
  return weights;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHuggingFaceCheckpoint(
    const std::string& directory, Activations activations) {
  auto checkpoint =
      std::make_unique<HuggingFaceCheckpoint>(directory, activations);
  SY_RETURN_IF_ERROR(checkpoint->Open());
  return checkpoint;
}

}  // namespace switchyard::model
