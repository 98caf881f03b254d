#include "model/checkpoint_base.h"

#include <sys/stat.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

absl::Status Annotate(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(path, ": ", status.message()));
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory,
                                            QuantizationConfig quantization) {
  struct stat info;
  if (stat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return absl::NotFoundError(
        absl::StrCat(directory,
                     ": there is no such directory; a checkpoint is "
                     "a directory with ",
                     kConfigFile, " and *.safetensors"));
  }
  const std::string path = absl::StrCat(directory, "/", kConfigFile);
  SY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text, quantization);
  if (!config.ok()) return Annotate(path, config.status());
  return config;
}

bool CheckpointBase::LayerHasExperts(int layer) const {
  SY_CHECK(layer >= 0 && layer < num_expert_layers());
  return layer == config_.num_hidden_layers || config_.is_moe[layer];
}

absl::StatusOr<std::vector<float>> CheckpointBase::FindFloats(
    absl::string_view tensor_name) const {
  SY_ASSIGN_OR_RETURN(const kernels::WeightView view, Find(tensor_name));
  std::vector<float> values(view.rows * view.cols);
  WidenWeights(view, values.data());
  return values;
}

void CheckpointBase::ReadBytes(const kernels::WeightView& view,
                               void* out) const {
  const int64_t bytes = WeightBytes(view);
  if (bytes == 0) return;
  std::memcpy(out, view.data, static_cast<size_t>(bytes));
  ReleaseMappedPages(view.data, bytes);
}

absl::Status CheckpointBase::ReadConfigs(QuantizationConfig quantization) {
  SY_ASSIGN_OR_RETURN(config_, ReadModelConfig(directory_, quantization));
  const std::string path = PathOf(kGenerationConfigFile);
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  SY_RETURN_IF_ERROR(text.status());
  absl::StatusOr<GenerationConfig> generation = ParseGenerationConfig(*text);
  if (!generation.ok()) return Annotate(path, generation.status());
  generation_config_ = *std::move(generation);
  return absl::OkStatus();
}

std::string CheckpointBase::PathOf(absl::string_view file) const {
  return absl::StrCat(directory_, "/", file);
}

}  // namespace switchyard::model
