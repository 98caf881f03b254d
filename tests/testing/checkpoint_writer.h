// Checkpoint directories for tests: fixtures saved again in another form, and
// random ones for any config.

#ifndef SWITCHYARD_TESTS_TESTING_CHECKPOINT_WRITER_H_
#define SWITCHYARD_TESTS_TESTING_CHECKPOINT_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/matrix.h"
#include "model/config.h"

namespace switchyard::testing {

struct NamedTensor {
  std::string name;
  kernels::DType dtype = kernels::DType::kF32;
  std::vector<int64_t> shape;
  std::string bytes;  // row-major, little-endian
};

// Rounds to nearest, ties to even. REQUIRES: shape's product == values.size().
NamedTensor MakeTensor(std::string name, std::vector<int64_t> shape,
                       absl::Span<const float> values, kernels::DType dtype);
std::vector<float> TensorValues(const NamedTensor& tensor);
NamedTensor ConvertTensor(const NamedTensor& tensor, kernels::DType dtype);

// Every tensor of DIRECTORY's model.safetensors or model-*.safetensors, by
// name.
absl::StatusOr<std::vector<NamedTensor>> ReadTensors(
    const std::string& directory);

// Separate experts (experts.{e}.gate_proj.weight ...) as the two fused tensors
// of each layer; all other tensors as they are.
std::vector<NamedTensor> FuseExperts(const model::ModelConfig& config,
                                     std::vector<NamedTensor> tensors);

// One file, tensors in the order given. Overwrites.
absl::Status WriteSafetensors(const std::string& path,
                              absl::Span<const NamedTensor> tensors);
absl::Status WriteTextFile(const std::string& path, const std::string& text);

// config.json and the weights: model.safetensors for one shard; for more,
// model-0000i-of-0000n.safetensors with about as many tensors each, dealt out
// in the order given, and the index. Makes `directory`.
absl::Status WriteCheckpoint(const std::string& directory,
                             const std::string& config_json,
                             absl::Span<const NamedTensor> tensors,
                             int num_shards = 1);

// A small Qwen3-Next in every respect but size: hidden 32, 4 layers (3 linear,
// 1 full attention), 8 experts of which 2 are chosen, vocabulary 128.
std::string SmallConfigJson();

struct RandomCheckpointOptions {
  std::string config_json = SmallConfigJson();
  uint64_t seed = 1;
  kernels::DType dtype = kernels::DType::kBF16;
  bool with_mtp = true;
  bool fused_experts = false;
  int num_shards = 1;
};

// A checkpoint of random weights, scaled so that activations stay of order one
// and routing is not near-tied. A tensor's values depend on seed and name
// alone.
absl::Status WriteRandomCheckpoint(const RandomCheckpointOptions& options,
                                   const std::string& directory);

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_CHECKPOINT_WRITER_H_
