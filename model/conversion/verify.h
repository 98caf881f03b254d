// Every checksum of a checkpoint, checked again.

#ifndef SWITCHYARD_MODEL_CONVERSION_VERIFY_H_
#define SWITCHYARD_MODEL_CONVERSION_VERIFY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/compute_pool.h"

namespace switchyard::model {

struct VerifyReport {
  int64_t num_checked = 0;  // tensors and experts; files of a plain directory
  int64_t bytes = 0;
  // What is damaged, a line each: file, name, both sums, what to do.
  std::vector<std::string> damaged;
};

// Of a converted checkpoint: every tensor and expert against the manifest. Of a
// plain directory: every file against its SHA256SUMS, up to the first that
// differs. `progress` (may be empty) hears of bytes done and in all on the
// caller's thread. Errors are those of what cannot be read at all: as
// Checkpoint::Open, or VerifyChecksums.
absl::StatusOr<VerifyReport> VerifyCheckpoint(
    const std::string& directory, ComputePool* pool,
    const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_VERIFY_H_
