#include "model/checkpoint.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/fingerprint.h"
#include "model/json_fields.h"
#include "model/safetensors.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::WeightView;

constexpr char kConfigFile[] = "config.json";
constexpr char kGenerationConfigFile[] = "generation_config.json";
constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr int64_t kMaxConfigBytes = 16 << 20;
// 76 000 tensors at about 100 bytes each are 8 MB.
constexpr int64_t kMaxIndexBytes = 256 << 20;

absl::Status Annotate(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(path, ": ", status.message()));
}

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

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

class CheckpointImpl final : public Checkpoint {
 public:
  explicit CheckpointImpl(std::string directory)
      : directory_(std::move(directory)) {}

  // The steps of Open, in order.
  absl::Status ReadConfigs();
  absl::Status OpenFiles();
  absl::Status CheckTensors();
  absl::Status ComputeFingerprint();

  const std::string& directory() const override { return directory_; }
  const ModelConfig& config() const override { return config_; }
  const GenerationConfig& generation_config() const override {
    return generation_config_;
  }
  bool has_mtp() const override { return has_mtp_; }
  int num_expert_layers() const override {
    return config_.num_hidden_layers + (has_mtp_ ? 1 : 0);
  }
  bool LayerHasExperts(int layer) const override {
    SY_CHECK(layer >= 0 && layer < num_expert_layers());
    return layer == config_.num_hidden_layers || config_.is_moe[layer];
  }
  absl::StatusOr<WeightView> Find(absl::string_view tensor_name) const override;
  absl::StatusOr<std::vector<float>> FindFloats(
      absl::string_view tensor_name) const override;
  absl::StatusOr<ExpertWeights> FindExpert(int layer,
                                           int expert) const override;
  kernels::DType expert_dtype() const override { return expert_dtype_; }
  void ReadBytes(const WeightView& view, void* out) const override;
  bool has_checksums() const override { return false; }
  absl::Status VerifyTensor(absl::string_view) const override {
    return absl::OkStatus();
  }
  absl::Status VerifyExpert(int, int) const override {
    return absl::OkStatus();
  }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  std::string PathOf(absl::string_view file) const {
    return absl::StrCat(directory_, "/", file);
  }
  absl::Status OpenSingleFile();
  absl::Status OpenShards();
  absl::Status OpenShard(const std::string& file,
                         const std::vector<std::string>& tensors);
  absl::Status CheckTensor(const std::string& name,
                           absl::Span<const int64_t> shape) const;
  void LogWhatIsThere(int64_t expected) const;
  // In the fingerprint's order and form.
  absl::Status ForEachExpectedTensor(
      absl::FunctionRef<void(const std::string& name,
                             const WeightView& weights)>
          visit) const;

  const std::string directory_;
  ModelConfig config_;
  GenerationConfig generation_config_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  // Where each tensor is. Keys and files are files_'.
  absl::flat_hash_map<absl::string_view, const SafetensorsFile*> tensors_;
  int64_t unindexed_tensors_ = 0;  // in a shard, but not in the index
  bool has_mtp_ = false;
  std::vector<ExpertForm> expert_forms_;  // [num_expert_layers]
  kernels::DType expert_dtype_ = kernels::DType::kF32;
  std::string fingerprint_;
};

absl::Status CheckpointImpl::ReadConfigs() {
  struct stat info;
  if (stat(directory_.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::NotFoundError(
        absl::StrCat(directory_,
                     ": there is no such directory; a checkpoint is "
                     "a directory with ",
                     kConfigFile, " and *.safetensors"));
  }
  const std::string config_path = PathOf(kConfigFile);
  SY_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(config_path, kMaxConfigBytes));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
  if (!config.ok()) return Annotate(config_path, config.status());
  config_ = *std::move(config);

  const std::string generation_path = PathOf(kGenerationConfigFile);
  const absl::StatusOr<std::string> generation_text =
      ReadFile(generation_path, kMaxConfigBytes);
  if (absl::IsNotFound(generation_text.status())) return absl::OkStatus();
  SY_RETURN_IF_ERROR(generation_text.status());
  absl::StatusOr<GenerationConfig> generation =
      ParseGenerationConfig(*generation_text);
  if (!generation.ok()) return Annotate(generation_path, generation.status());
  generation_config_ = *std::move(generation);
  return absl::OkStatus();
}

// As transformers: the single file, if there is one, counts before the index.
absl::Status CheckpointImpl::OpenFiles() {
  if (FileExists(PathOf(kSingleFile))) return OpenSingleFile();
  if (FileExists(PathOf(kIndexFile))) return OpenShards();
  return absl::NotFoundError(
      absl::StrCat(directory_, ": there is neither ", kSingleFile, " nor ",
                   kIndexFile, "; weights are read from safetensors files"));
}

absl::Status CheckpointImpl::OpenSingleFile() {
  SY_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file,
                      SafetensorsFile::Open(PathOf(kSingleFile)));
  for (const auto& [name, tensor] : file->tensors()) {
    tensors_.emplace(name, file.get());
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status CheckpointImpl::OpenShards() {
  const std::string index_path = PathOf(kIndexFile);
  SY_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(index_path, kMaxIndexBytes));
  absl::StatusOr<Json> index =
      ParseJson(text, {.max_bytes = kMaxIndexBytes, .max_depth = 8});
  if (!index.ok()) return Annotate(index_path, index.status());
  const auto bad_index = [&](absl::string_view what) {
    return Annotate(index_path, absl::InvalidArgumentError(what));
  };
  if (!index->is_object() || !index->contains("weight_map") ||
      !(*index)["weight_map"].is_object()) {
    return bad_index("there is no weight_map of tensor name to file name");
  }
  std::map<std::string, std::vector<std::string>> tensors_of_file;
  for (const auto& [name, file] : (*index)["weight_map"].items()) {
    if (!file.is_string()) {
      return bad_index(absl::StrCat("the file of ", name, " is ",
                                    DescribeJson(file), ", not a name"));
    }
    const std::string file_name = file.get<std::string>();
    // Only files beside the index: an index is data, not a list of paths.
    if (file_name.empty() || absl::StrContains(file_name, '/') ||
        file_name == "." || file_name == "..") {
      return bad_index(absl::StrCat("the file of ", name, " is \"", file_name,
                                    "\"; it must be a name without folders"));
    }
    tensors_of_file[file_name].push_back(name);
  }
  if (tensors_of_file.empty()) return bad_index("weight_map is empty");
  for (const auto& [file, tensors] : tensors_of_file) {
    const absl::Status status = OpenShard(file, tensors);
    if (absl::IsNotFound(status)) {
      return absl::NotFoundError(absl::StrCat(
          status.message(), " (", kIndexFile, " says that it holds ",
          tensors.front(), tensors.size() > 1 ? " and others" : "",
          "; fetch it, or the whole checkpoint, again)"));
    }
    SY_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::Status CheckpointImpl::OpenShard(
    const std::string& file_name, const std::vector<std::string>& tensors) {
  SY_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file,
                      SafetensorsFile::Open(PathOf(file_name)));
  for (const std::string& name : tensors) {
    const auto it = file->tensors().find(name);
    if (it == file->tensors().end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          file->path(), ": there is no tensor ", name, ", though ", kIndexFile,
          " says so: shards and index are of different checkpoints"));
    }
    tensors_.emplace(it->first, file.get());
  }
  unindexed_tensors_ +=
      static_cast<int64_t>(file->tensors().size() - tensors.size());
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status CheckpointImpl::CheckTensor(
    const std::string& name, absl::Span<const int64_t> shape) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    return absl::NotFoundError(
        absl::StrCat(directory_, ": no file holds tensor ", name, " of shape ",
                     FormatShape(shape), ", which ", kConfigFile, " calls for",
                     absl::StartsWith(name, kMtpPrefix)
                         ? " because other mtp.* tensors are there"
                         : ""));
  }
  const SafetensorsFile& file = *it->second;
  const SafetensorsTensor& tensor = *file.Find(name);
  if (shape != absl::MakeConstSpan(tensor.shape)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": tensor ", name, " has shape ",
                     FormatShape(tensor.shape), "; ", kConfigFile,
                     " calls for ", FormatShape(shape)));
  }
  return file.View(name).status();  // dtype and alignment
}

absl::Status CheckpointImpl::CheckTensors() {
  for (const auto& [name, file] : tensors_) {
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
    expert_forms_.push_back(tensors_.contains(FusedGateUpName(config_, layer))
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

void CheckpointImpl::LogWhatIsThere(int64_t expected) const {
  const int64_t ignored =
      static_cast<int64_t>(tensors_.size()) + unindexed_tensors_ - expected;
  LogInfo(absl::StrCat(
      directory_, ": ", expected, " tensors in ", files_.size(), " file(s), ",
      has_mtp_ ? "with" : "without", " MTP head",
      ignored == 0
          ? ""
          : absl::StrCat("; ", ignored, " other tensors are ignored")));
}

absl::Status CheckpointImpl::ForEachExpectedTensor(
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

absl::Status CheckpointImpl::ComputeFingerprint() {
  const ScopedRandomAccess random_access(files_);
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

absl::StatusOr<WeightView> CheckpointImpl::Find(
    absl::string_view tensor_name) const {
  // A tied head is the embedding, even where a file carries a copy of it.
  if (config_.tie_word_embeddings && tensor_name == kLmHeadName) {
    tensor_name = kEmbeddingName;
  }
  const auto it = tensors_.find(tensor_name);
  if (it == tensors_.end()) {
    return absl::NotFoundError(
        absl::StrCat(directory_, ": no file holds tensor ", tensor_name));
  }
  return it->second->View(tensor_name);
}

absl::StatusOr<std::vector<float>> CheckpointImpl::FindFloats(
    absl::string_view tensor_name) const {
  SY_ASSIGN_OR_RETURN(const WeightView view, Find(tensor_name));
  std::vector<float> values(view.rows * view.cols);
  WidenWeights(view, values.data());
  return values;
}

void CheckpointImpl::ReadBytes(const WeightView& view, void* out) const {
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const size_t bytes = static_cast<size_t>(WeightBytes(view));
  if (bytes == 0) return;
  std::memcpy(out, view.data, bytes);
  // Outwards to whole pages: the mapping is read-only, so a neighbour's page
  // that goes too is read again. Advice: a refusal does not matter.
  const uintptr_t address = reinterpret_cast<uintptr_t>(view.data);
  const uintptr_t begin = address / page * page;
  const uintptr_t end = (address + bytes + page - 1) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

absl::StatusOr<ExpertWeights> CheckpointImpl::FindExpert(int layer,
                                                         int expert) const {
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

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    const std::string& directory) {
  auto checkpoint = std::make_unique<CheckpointImpl>(directory);
  SY_RETURN_IF_ERROR(checkpoint->ReadConfigs());
  SY_RETURN_IF_ERROR(checkpoint->OpenFiles());
  SY_RETURN_IF_ERROR(checkpoint->CheckTensors());
  SY_RETURN_IF_ERROR(checkpoint->ComputeFingerprint());
  return checkpoint;
}

}  // namespace switchyard::model
