// The safetensors files of a Hugging Face directory, and which holds what.

#ifndef SWITCHYARD_MODEL_TENSOR_FILES_H_
#define SWITCHYARD_MODEL_TENSOR_FILES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/safetensors.h"

namespace switchyard::model {

// model.safetensors, or the shards of model.safetensors.index.json. Immutable,
// so thread-safe. Views into the files live as long as this.
class TensorFiles {
 public:
  // As transformers: the single file, if there is one, counts before the index.
  // NOT_FOUND: neither is there, or a shard of the index is not.
  // INVALID_ARGUMENT: an index that is none, or that the shards contradict; or
  // as SafetensorsFile::Open. All name the file.
  static absl::StatusOr<std::unique_ptr<TensorFiles>> Open(
      const std::string& directory);

  // The file that holds a tensor; null if none does.
  const SafetensorsFile* FileOf(absl::string_view tensor) const;
  // Every tensor with its file; the keys are the files'.
  const absl::flat_hash_map<absl::string_view, const SafetensorsFile*>&
  tensors() const {
    return tensors_;
  }
  const std::vector<std::unique_ptr<SafetensorsFile>>& files() const {
    return files_;
  }
  // Tensors in a shard that the index does not list.
  int64_t num_unindexed() const { return num_unindexed_; }

 private:
  explicit TensorFiles(std::string directory)
      : directory_(std::move(directory)) {}
  absl::Status OpenSingleFile();
  absl::Status OpenShards();
  absl::Status OpenShard(const std::string& file,
                         const std::vector<std::string>& tensors);

  const std::string directory_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<absl::string_view, const SafetensorsFile*> tensors_;
  int64_t num_unindexed_ = 0;
};

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_TENSOR_FILES_H_
