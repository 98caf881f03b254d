// Writes a two-dimensional array of floats as numpy's .npy, version 1.0.

#ifndef SWITCHYARD_SWITCHYARD_LOGITS_NPY_WRITER_H_
#define SWITCHYARD_SWITCHYARD_LOGITS_NPY_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace switchyard {

// Create(), Append() until all values are there, Finish(). The values go to a
// file beside `path`, which takes its place in Finish(), in one step; without
// that the destructor removes it. What is there already and no plain file (a
// pipe, /dev/stdout) is written to as it is. One thread.
class NpyWriter {
 public:
  // Errors have the path and the system's reason (a full disk:
  // RESOURCE_EXHAUSTED), here and below. INVALID_ARGUMENT: a directory.
  static absl::StatusOr<std::unique_ptr<NpyWriter>> Create(
      const std::string& path, int64_t rows, int64_t cols);
  ~NpyWriter();
  NpyWriter(const NpyWriter&) = delete;
  NpyWriter& operator=(const NpyWriter&) = delete;

  // The next values, row-major; in all no more than rows * cols.
  absl::Status Append(absl::Span<const float> values);
  // REQUIRES: rows * cols values were appended.
  absl::Status Finish();

 private:
  NpyWriter(std::string path, std::string temporary_path, int descriptor,
            int64_t values);
  absl::Status Write(const void* data, size_t bytes);
  absl::Status Error(const char* doing) const;

  const std::string path_;
  const std::string temporary_path_;  // == path_: written to as it is
  int descriptor_;                    // -1 once closed
  int64_t missing_;                   // values that are still to come
  bool finished_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_LOGITS_NPY_WRITER_H_
