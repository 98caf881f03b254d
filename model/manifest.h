// switchyard.json: what a converted checkpoint consists of. docs/formats.md has
// its fields. Written last, so that a directory with it is whole; read by the
// loader, which believes nothing in it.

#ifndef SWITCHYARD_MODEL_MANIFEST_H_
#define SWITCHYARD_MODEL_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/matrix.h"
#include "model/weight_formats.h"

namespace switchyard::model {

inline constexpr char kManifestFile[] = "switchyard.json";
// Stands in a directory as long as its conversion is not finished.
inline constexpr char kJournalFile[] = "conversion.journal";
// Of 80e9 weights: 2 MB.
inline constexpr int64_t kMaxManifestBytes = 64 << 20;

struct Manifest {
  // A tensor that is no routed expert.
  struct Tensor {
    std::string name;
    std::string file;  // without folders
    kernels::DType dtype = kernels::DType::kF32;
    std::vector<int64_t> shape;
    std::string sha256;  // 64 lower-case hex digits, of its bytes in the file

    friend bool operator==(const Tensor&, const Tensor&) = default;
  };
  struct ExpertLayer {
    int layer = 0;  // num_hidden_layers: the MTP head's
    std::string file;
    std::vector<std::string> sha256;  // [E], of each blob

    friend bool operator==(const ExpertLayer&, const ExpertLayer&) = default;
  };

  std::string tool_version;
  std::string source_fingerprint;  // 64 lower-case hex digits
  std::string source_dtype;        // of the source's experts: "BF16", "F8_E4M3"
  WeightFormats formats;
  std::vector<Tensor> tensors;
  kernels::DType expert_dtype = kernels::DType::kF32;
  std::vector<ExpertLayer> expert_layers;  // ascending

  friend bool operator==(const Manifest&, const Manifest&) = default;
};

// SHA-256 over all that says what the weights are: source, formats, and every
// name, dtype, shape and checksum; not over file names or the tool's version.
// 64 lower-case hex digits.
std::string ManifestDigest(const Manifest& manifest);

// JSON, with the digest.
std::string SerializeManifest(const Manifest& manifest);

// INVALID_ARGUMENT names the field: missing, of the wrong type or out of range;
// another format version, and which is read; a name twice. DATA_LOSS: not JSON,
// or the digest is not that of the rest. Says nothing of whether the files
// agree.
absl::StatusOr<Manifest> ParseManifest(absl::string_view json_text);

// Whether `file_name` may stand in a manifest or an index: not empty, no
// folder.
bool IsPlainFileName(absl::string_view file_name);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_MANIFEST_H_
