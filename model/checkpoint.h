// A checkpoint directory, Hugging Face's or converted: config, tensors by name,
// fingerprint.
//
// Tensors are views into memory-mapped safetensors files, so a process touches
// only the pages of the tensors that it serves.

#ifndef SWITCHYARD_MODEL_CHECKPOINT_H_
#define SWITCHYARD_MODEL_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/matrix.h"
#include "model/config.h"

namespace switchyard::model {

// What activations are when they are multiplied by the matrices that a
// converter may choose formats for (model/weight_formats.h).
enum class Activations {
  kAuto,      // what the tensors' formats say; of a Hugging Face directory f32
  kBFloat16,  // a Hugging Face directory's BF16 matrices are kBF16Dot
};
// "auto" or "bfloat16". INVALID_ARGUMENT names the flag, --activations.
absl::StatusOr<Activations> ParseActivations(absl::string_view text);

// One expert's three matrices, as views: of per-expert tensors
// (experts.{e}.gate_proj.weight ...), of fused ones (experts.gate_up_proj
// [E, 2I, H], experts.down_proj [E, H, I]), or of one contiguous piece
// (model/expert_blob.h).
struct ExpertWeights {
  kernels::WeightView gate_proj;  // [I, H]
  kernels::WeightView up_proj;    // [I, H]
  kernels::WeightView down_proj;  // [H, I]
};

// Immutable after Open, so thread-safe. Views live as long as the checkpoint.
class Checkpoint {
 public:
  // A directory with switchyard.json is a converted one (docs/formats.md): its
  // manifest and every file's header are read and checked against config.json.
  // Otherwise reads config.json, generation_config.json (optional),
  // model.safetensors or the index and every shard's header, and checks every
  // expected tensor's name, dtype and shape (model/weight_names.h). Tensors
  // beyond those are ignored and counted in a log line. NOT_FOUND: no such
  // directory, file or tensor. INVALID_ARGUMENT: wrong architecture, shape,
  // dtype; a cut file. DATA_LOSS: a header or manifest that contradicts itself.
  // FAILED_PRECONDITION: a conversion that was not finished. All name the file,
  // and what was expected and found. INVALID_ARGUMENT also: kBFloat16 where
  // there is no BF16 matrix, or of a converted directory, whose formats are its
  // own.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(
      const std::string& directory,
      Activations activations = Activations::kAuto);
  virtual ~Checkpoint() = default;

  virtual const std::string& directory() const = 0;
  virtual const ModelConfig& config() const = 0;
  virtual const GenerationConfig& generation_config() const = 0;

  // True if the mtp.* tensors are there.
  virtual bool has_mtp() const = 0;

  // Layers that can hold experts: num_hidden_layers, plus one for the MTP layer
  // if has_mtp(). In every (layer, expert) pair of this project the MTP layer
  // has the index num_hidden_layers.
  virtual int num_expert_layers() const = 0;
  // False for dense layers.
  virtual bool LayerHasExperts(int layer) const = 0;

  // A tensor with one dimension counts as [1, n]; higher ones are flattened to
  // [first, rest]. NOT_FOUND names the tensor.
  virtual absl::StatusOr<kernels::WeightView> Find(
      absl::string_view tensor_name) const = 0;

  // A tensor as floats, flattened.
  virtual absl::StatusOr<std::vector<float>> FindFloats(
      absl::string_view tensor_name) const = 0;

  // REQUIRES: LayerHasExperts(layer), 0 <= expert < num_experts.
  virtual absl::StatusOr<ExpertWeights> FindExpert(int layer,
                                                   int expert) const = 0;

  // Of the routed experts' matrices: one for all of them in a converted
  // checkpoint, else that of the first layer's first gate_proj. kF32 if no
  // layer has experts.
  virtual kernels::DType expert_dtype() const = 0;

  // Copies `view`, or rows of one, WeightBytes(view) bytes, to `out`, and gives
  // the mapped pages back (they stay in the kernel's cache), so that a process
  // which copies its weights holds them once. REQUIRES: a view of this
  // checkpoint. Thread-safe: a page that somebody else still reads comes back
  // by itself.
  virtual void ReadBytes(const kernels::WeightView& view, void* out) const = 0;

  // True for a converted checkpoint: its manifest has a SHA-256 of every tensor
  // and expert, and the Verify functions compare it with the file's bytes, all
  // of which they read (so that they also bring the pages into memory). False:
  // they return OK at once. DATA_LOSS names the file, the tensor, both sums,
  // and what to do. Thread-safe: several at once are faster.
  virtual bool has_checksums() const = 0;
  virtual absl::Status VerifyTensor(absl::string_view tensor_name) const = 0;
  // The three matrices of one expert. REQUIRES: as FindExpert.
  virtual absl::Status VerifyExpert(int layer, int expert) const = 0;

  // 64 lower-case hex digits: SHA-256 over a canonical form of config.json's
  // values that change arithmetic, every expected tensor's name, dtype and
  // shape, and the content of a fixed, small sample of each tensor's bytes
  // (the first and last 4 KiB; model/fingerprint.h). The same weights in other
  // shards, or with experts fused or separate, give the same fingerprint.
  // Computed in Open(), for which it reads that sample. Of a converted
  // checkpoint: SHA-256 over the same form of config.json and the manifest's
  // digest, that is the source's fingerprint, the formats and all checksums.
  virtual const std::string& fingerprint() const = 0;
};

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CHECKPOINT_H_
