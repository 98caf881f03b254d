// A safetensors file that is written out of order, by several threads: where
// everything lies is fixed before the first byte is written.

#ifndef SWITCHYARD_MODEL_CONVERSION_CONTAINER_H_
#define SWITCHYARD_MODEL_CONVERSION_CONTAINER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/expert_blob.h"

namespace switchyard::model {

struct ContainerTensor {
  std::string name;
  std::string dtype;  // as safetensors spells it
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  int64_t offset = 0;  // bytes from the file's start; set by PlanContainer
};

struct ContainerPlan {
  std::string header;  // the file's first bytes
  std::vector<ContainerTensor> tensors;
  int64_t file_bytes = 0;
};

// Lays the tensors out in the order given: the data begins at a multiple of
// 4096, each tensor at a multiple of `tensor_alignment`. The format allows no
// gaps, so what would be one is a U8 tensor "padding.N".
ContainerPlan PlanContainer(std::vector<ContainerTensor> tensors,
                            int64_t tensor_alignment = kTensorAlignment);

// Create, any number of Writes (thread-safe), Finish. The bytes go to
// PATH.partial, which takes its place in Finish; the destructor removes what
// was not finished.
class OutputFile {
 public:
  // Replaces an older PATH.partial, and reserves `bytes` on the disk where the
  // file system can. RESOURCE_EXHAUSTED: the disk is full. All errors have the
  // path and the system's reason.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(std::string path,
                                                            int64_t bytes);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // At `offset` from the file's start. Errors as Create's.
  absl::Status Write(int64_t offset, absl::Span<const uint8_t> bytes);
  // All bytes are on the disk, and the file has its name.
  absl::Status Finish();

 private:
  OutputFile(std::string path, int descriptor);
  absl::Status Error(int error, const char* doing) const;

  const std::string path_;
  const std::string partial_path_;
  int descriptor_;  // -1 once closed
  bool finished_ = false;
};

// A whole small file, as OutputFile.
absl::Status WriteWholeFile(const std::string& path, absl::string_view content);

// After files were made in or renamed in `directory`: their names are on the
// disk too.
absl::Status SyncDirectory(const std::string& directory);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_CONTAINER_H_
