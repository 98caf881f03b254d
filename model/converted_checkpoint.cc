// A converted checkpoint: views into containers that `switchyard convert`
// wrote, as its manifest lists them.

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/checkpoint_base.h"
#include "model/expert_blob.h"
#include "model/fingerprint.h"
#include "model/manifest.h"
#include "model/safetensors.h"
#include "model/weight_formats.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using kernels::WeightView;

// Changes whenever the same conversion would give another fingerprint.
constexpr char kFingerprintLine[] = "switchyard converted fingerprint 1\n";
constexpr char kBlobDType[] = "U8";

// Some bytes of a file that have a checksum.
struct Piece {
  std::string name;
  const SafetensorsFile* file = nullptr;
  absl::Span<const uint8_t> bytes;
  std::string sha256;
};

absl::Status Verify(const Piece& piece) {
  Sha256 hash;
  hash.Update(piece.bytes);
  const std::string found = hash.FinishHex();
  if (found == piece.sha256) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      piece.file->path(), ": ", piece.name, " is damaged: its SHA-256 is ",
      found, ", ", kManifestFile, " says ", piece.sha256,
      ": copy the file, or convert the model, again"));
}

class ConvertedCheckpoint final : public CheckpointBase {
 public:
  explicit ConvertedCheckpoint(std::string directory)
      : CheckpointBase(std::move(directory)) {}

  absl::Status Open();

  absl::StatusOr<WeightView> Find(absl::string_view tensor_name) const override;
  absl::StatusOr<ExpertWeights> FindExpert(int layer,
                                           int expert) const override;
  DType expert_dtype() const override { return expert_dtype_; }
  bool has_checksums() const override { return true; }
  absl::Status VerifyTensor(absl::string_view tensor_name) const override;
  absl::Status VerifyExpert(int layer, int expert) const override;

 private:
  struct Tensor {
    WeightView view;
    Piece piece;
  };

  // The steps of Open, in order.
  absl::Status OpenFiles(const Manifest& manifest);
  absl::Status AddTensors(const Manifest& manifest);
  absl::Status AddExperts(const Manifest& manifest);

  absl::Status AddTensor(const Manifest::Tensor& entry,
                         absl::Span<const int64_t> shape);
  absl::Status AddExpertLayer(const Manifest::ExpertLayer& entry);
  absl::Status BadManifest(absl::string_view what) const;
  // As a tensor of the file: `bytes` of U8 at a multiple of kTensorAlignment.
  absl::StatusOr<Piece> FindBlob(const SafetensorsFile& file,
                                 const std::string& name, int64_t bytes,
                                 const std::string& sha256) const;
  absl::StatusOr<const Tensor*> FindTensor(absl::string_view name) const;
  const Piece& Expert(int layer, int expert) const;

  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<std::string, Tensor> tensors_;
  DType expert_dtype_ = DType::kF32;
  std::vector<std::vector<Piece>> experts_;  // [num_expert_layers][E or 0]
};

absl::Status ConvertedCheckpoint::BadManifest(absl::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat(PathOf(kManifestFile), ": ", what,
                   "; manifest and directory do not belong together: convert "
                   "the model again"));
}

absl::Status ConvertedCheckpoint::Open() {
  // A converted FP8 model still has the source's config.json.
  SY_RETURN_IF_ERROR(ReadConfigs(QuantizationConfig::kIgnore));
  const std::string path = PathOf(kManifestFile);
  SY_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(path, kMaxManifestBytes));
  const absl::StatusOr<Manifest> manifest = ParseManifest(text);
  if (!manifest.ok()) {
    return absl::Status(manifest.status().code(),
                        absl::StrCat(path, ": ", manifest.status().message()));
  }
  for (const Manifest::Tensor& tensor : manifest->tensors) {
    has_mtp_ = has_mtp_ || absl::StartsWith(tensor.name, kMtpPrefix);
  }
  SY_RETURN_IF_ERROR(OpenFiles(*manifest));
  SY_RETURN_IF_ERROR(AddTensors(*manifest));
  SY_RETURN_IF_ERROR(AddExperts(*manifest));

  Sha256 hash;
  hash.Update(kFingerprintLine);
  hash.Update(CanonicalConfig(config_));
  hash.Update(ManifestDigest(*manifest));
  fingerprint_ = hash.FinishHex();
  LogInfo(absl::StrCat(
      directory_, ": converted, ", DescribeFormats(manifest->formats), "; ",
      tensors_.size(), " tensors and the experts of ",
      manifest->expert_layers.size(), " layer(s) in ", files_.size(),
      " file(s), ", has_mtp_ ? "with" : "without", " MTP head"));
  return absl::OkStatus();
}

absl::Status ConvertedCheckpoint::OpenFiles(const Manifest& manifest) {
  const auto open = [&](const std::string& file) -> absl::Status {
    std::unique_ptr<SafetensorsFile>& opened = files_[file];
    if (opened != nullptr) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<SafetensorsFile>> found =
        SafetensorsFile::Open(PathOf(file));
    if (absl::IsNotFound(found.status())) {
      return absl::NotFoundError(
          absl::StrCat(found.status().message(), " (", kManifestFile,
                       " lists it): copy the file, or convert the model, "
                       "again"));
    }
    SY_RETURN_IF_ERROR(found.status());
    opened = *std::move(found);
    return absl::OkStatus();
  };
  for (const Manifest::Tensor& tensor : manifest.tensors) {
    SY_RETURN_IF_ERROR(open(tensor.file));
  }
  for (const Manifest::ExpertLayer& layer : manifest.expert_layers) {
    SY_RETURN_IF_ERROR(open(layer.file));
  }
  return absl::OkStatus();
}

absl::Status ConvertedCheckpoint::AddTensors(const Manifest& manifest) {
  absl::flat_hash_map<absl::string_view, const Manifest::Tensor*> listed;
  for (const Manifest::Tensor& tensor : manifest.tensors) {
    listed.emplace(tensor.name, &tensor);
  }
  SY_RETURN_IF_ERROR(ForEachNonExpertWeight(
      config_, has_mtp_,
      [&](const std::string& name,
          absl::Span<const int64_t> shape) -> absl::Status {
        const auto it = listed.find(name);
        if (it == listed.end()) {
          return BadManifest(
              absl::StrCat("tensor ", name, " of shape ", FormatShape(shape),
                           " is missing, which ", kConfigFile, " calls for"));
        }
        const Manifest::Tensor* const entry = it->second;
        listed.erase(it);
        return AddTensor(*entry, shape);
      }));
  // A tied head of a format of its own stands beside the plain embedding.
  if (const auto it = listed.find(kLmHeadName);
      it != listed.end() && config_.tie_word_embeddings) {
    const Manifest::Tensor* const entry = it->second;
    listed.erase(it);
    SY_RETURN_IF_ERROR(
        AddTensor(*entry, {config_.vocab_size, config_.hidden_size}));
  }
  if (listed.empty()) return absl::OkStatus();
  return BadManifest(absl::StrCat("tensor ", listed.begin()->first,
                                  " is listed, which ", kConfigFile,
                                  " does not call for"));
}

absl::Status ConvertedCheckpoint::AddTensor(const Manifest::Tensor& entry,
                                            absl::Span<const int64_t> shape) {
  if (shape != absl::MakeConstSpan(entry.shape)) {
    return BadManifest(absl::StrCat("tensor ", entry.name, " has shape ",
                                    FormatShape(entry.shape), "; ", kConfigFile,
                                    " calls for ", FormatShape(shape)));
  }
  const SafetensorsFile& file = *files_.at(entry.file);
  Tensor tensor;
  if (kernels::RowFormatOf(entry.dtype) != kernels::RowFormat::kF32 &&
      (KindOf(entry.name) == TensorKind::kOther || shape.size() != 2)) {
    return BadManifest(absl::StrCat("tensor ", entry.name, " is ",
                                    DTypeName(entry.dtype),
                                    ", but must keep its source's dtype"));
  }
  if (kernels::IsQuantized(entry.dtype)) {
    tensor.view = {nullptr, entry.dtype, shape[0], shape[1]};
    SY_ASSIGN_OR_RETURN(
        tensor.piece,
        FindBlob(file, entry.name, WeightBytes(tensor.view), entry.sha256));
    tensor.view.data = tensor.piece.bytes.data();
  } else {
    SY_ASSIGN_OR_RETURN(tensor.view, file.View(entry.name));
    const SafetensorsTensor& found = *file.Find(entry.name);
    if (tensor.view.dtype != FileDType(entry.dtype) ||
        found.shape != entry.shape) {
      return BadManifest(absl::StrCat(
          "tensor ", entry.name, " is ", DTypeName(entry.dtype), " ",
          FormatShape(entry.shape), ", but ", entry.file, " has it as ",
          found.dtype, " ", FormatShape(found.shape)));
    }
    tensor.view.dtype = entry.dtype;
    tensor.piece = {entry.name, &file, file.bytes(found), entry.sha256};
  }
  tensors_.emplace(entry.name, std::move(tensor));
  return absl::OkStatus();
}

absl::StatusOr<Piece> ConvertedCheckpoint::FindBlob(
    const SafetensorsFile& file, const std::string& name, int64_t bytes,
    const std::string& sha256) const {
  const SafetensorsTensor* const found = file.Find(name);
  if (found == nullptr) {
    return BadManifest(absl::StrCat(file.path(), " does not hold ", name));
  }
  if (found->dtype != kBlobDType || found->end - found->begin != bytes) {
    return BadManifest(absl::StrCat(file.path(), " has ", name, " as ",
                                    found->end - found->begin, " bytes of ",
                                    found->dtype, "; ", bytes, " of ",
                                    kBlobDType, " are expected"));
  }
  if (found->begin % kTensorAlignment != 0) {
    return BadManifest(absl::StrCat(file.path(), " has ", name, " at byte ",
                                    found->begin, ", which is no multiple of ",
                                    kTensorAlignment));
  }
  return Piece{name, &file, file.bytes(*found), sha256};
}

absl::Status ConvertedCheckpoint::AddExperts(const Manifest& manifest) {
  expert_dtype_ = manifest.expert_dtype;
  experts_.resize(num_expert_layers());
  size_t next = 0;
  for (int layer = 0; layer < num_expert_layers(); ++layer) {
    if (!LayerHasExperts(layer)) continue;
    if (next == manifest.expert_layers.size() ||
        manifest.expert_layers[next].layer != layer) {
      return BadManifest(absl::StrCat("the experts of layer ", layer,
                                      " are missing, or not expected"));
    }
    SY_RETURN_IF_ERROR(AddExpertLayer(manifest.expert_layers[next]));
    ++next;
  }
  if (next == manifest.expert_layers.size()) return absl::OkStatus();
  return BadManifest(
      absl::StrCat("experts of layer ", manifest.expert_layers[next].layer,
                   " are listed, which ", kConfigFile, " does not call for"));
}

absl::Status ConvertedCheckpoint::AddExpertLayer(
    const Manifest::ExpertLayer& entry) {
  if (static_cast<int>(entry.sha256.size()) != config_.num_experts) {
    return BadManifest(
        absl::StrCat("layer ", entry.layer, " has ", entry.sha256.size(),
                     " experts; ", kConfigFile, " says ", config_.num_experts));
  }
  const SafetensorsFile& file = *files_.at(entry.file);
  const int64_t bytes = ExpertBlobLayout(config_, expert_dtype_).bytes;
  std::vector<Piece>& experts = experts_[entry.layer];
  for (int e = 0; e < config_.num_experts; ++e) {
    SY_ASSIGN_OR_RETURN(Piece piece,
                        FindBlob(file, ExpertBlobName(config_, entry.layer, e),
                                 bytes, entry.sha256[e]));
    experts.push_back(std::move(piece));
  }
  return absl::OkStatus();
}

absl::StatusOr<const ConvertedCheckpoint::Tensor*>
ConvertedCheckpoint::FindTensor(absl::string_view name) const {
  auto it = tensors_.find(name);
  if (it == tensors_.end() && config_.tie_word_embeddings &&
      name == kLmHeadName) {
    it = tensors_.find(kEmbeddingName);
  }
  if (it == tensors_.end()) {
    return absl::NotFoundError(
        absl::StrCat(directory_, ": no file holds tensor ", name));
  }
  return &it->second;
}

const Piece& ConvertedCheckpoint::Expert(int layer, int expert) const {
  SY_CHECK(LayerHasExperts(layer));
  SY_CHECK(expert >= 0 && expert < config_.num_experts);
  return experts_[layer][expert];
}

absl::StatusOr<WeightView> ConvertedCheckpoint::Find(
    absl::string_view tensor_name) const {
  SY_ASSIGN_OR_RETURN(const Tensor* const tensor, FindTensor(tensor_name));
  return tensor->view;
}

absl::StatusOr<ExpertWeights> ConvertedCheckpoint::FindExpert(
    int layer, int expert) const {
  return ViewExpertBlob(config_, expert_dtype_,
                        Expert(layer, expert).bytes.data());
}

absl::Status ConvertedCheckpoint::VerifyTensor(
    absl::string_view tensor_name) const {
  SY_ASSIGN_OR_RETURN(const Tensor* const tensor, FindTensor(tensor_name));
  return Verify(tensor->piece);
}

absl::Status ConvertedCheckpoint::VerifyExpert(int layer, int expert) const {
  return Verify(Expert(layer, expert));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenConvertedCheckpoint(
    const std::string& directory) {
  auto checkpoint = std::make_unique<ConvertedCheckpoint>(directory);
  SY_RETURN_IF_ERROR(checkpoint->Open());
  return checkpoint;
}

}  // namespace switchyard::model
