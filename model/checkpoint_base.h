// What the two kinds of checkpoint directory have in common. Seen by them alone
// (and by model/conversion); others use model/checkpoint.h.

#ifndef SWITCHYARD_MODEL_CHECKPOINT_BASE_H_
#define SWITCHYARD_MODEL_CHECKPOINT_BASE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/checkpoint.h"

namespace switchyard::model {

inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kGenerationConfigFile[] = "generation_config.json";
inline constexpr int64_t kMaxConfigBytes = 16 << 20;

// Checks that `directory` is there, and reads its config.json. NOT_FOUND, or
// INVALID_ARGUMENT as ParseModelConfig; both name the path.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory,
                                            QuantizationConfig quantization);

class CheckpointBase : public Checkpoint {
 public:
  const std::string& directory() const override { return directory_; }
  const ModelConfig& config() const override { return config_; }
  const GenerationConfig& generation_config() const override {
    return generation_config_;
  }
  bool has_mtp() const override { return has_mtp_; }
  int num_expert_layers() const override {
    return config_.num_hidden_layers + (has_mtp_ ? 1 : 0);
  }
  bool LayerHasExperts(int layer) const override;
  absl::StatusOr<std::vector<float>> FindFloats(
      absl::string_view tensor_name) const override;
  void ReadBytes(const kernels::WeightView& view, void* out) const override;
  const std::string& fingerprint() const override { return fingerprint_; }

 protected:
  explicit CheckpointBase(std::string directory)
      : directory_(std::move(directory)) {}
  // config.json and generation_config.json.
  absl::Status ReadConfigs(QuantizationConfig quantization);
  std::string PathOf(absl::string_view file) const;

  const std::string directory_;
  ModelConfig config_;
  GenerationConfig generation_config_;
  bool has_mtp_ = false;
  std::string fingerprint_;
};

// A directory in Hugging Face's layout.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHuggingFaceCheckpoint(
    const std::string& directory, Activations activations);

// A directory with switchyard.json (model/manifest.h).
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenConvertedCheckpoint(
    const std::string& directory);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CHECKPOINT_BASE_H_
