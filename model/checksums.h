// SHA256SUMS: the checksums of a checkpoint's files, in sha256sum's format.
//
// The only defence against a flipped bit in the middle of a weight file:
// safetensors has no checksum, and the fingerprint reads only a sample. Made by
//   cd DIRECTORY && sha256sum *.safetensors *.json > SHA256SUMS

#ifndef SWITCHYARD_MODEL_CHECKSUMS_H_
#define SWITCHYARD_MODEL_CHECKSUMS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::model {

inline constexpr char kChecksumsFile[] = "SHA256SUMS";

// File name -> 64 lower-case hex digits. INVALID_ARGUMENT names the line: not
// "<64 hex digits>  <name>" (or " *" before the name), a name with folders, a
// name listed twice, or no line at all.
absl::StatusOr<std::map<std::string, std::string>> ParseChecksums(
    absl::string_view text);

// Reads every file that DIRECTORY/SHA256SUMS lists, whole, one after another,
// on the calling thread. `progress` (may be empty) hears of bytes done and in
// all. NOT_FOUND: no SHA256SUMS, or a listed file is missing.
// FAILED_PRECONDITION: a
// *.safetensors file that is not listed. DATA_LOSS: a file with another sum;
// the text has both.
absl::Status VerifyChecksums(
    const std::string& directory,
    const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CHECKSUMS_H_
