#include "model/checkpoint.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "model/checkpoint_base.h"
#include "model/manifest.h"

namespace switchyard::model {
namespace {

bool Exists(const std::string& directory, const char* file) {
  struct stat info;
  return stat(absl::StrCat(directory, "/", file).c_str(), &info) == 0;
}

}  // namespace

absl::StatusOr<Activations> ParseActivations(absl::string_view text) {
  if (text == "auto") return Activations::kAuto;
  if (text == "bfloat16") return Activations::kBFloat16;
  return absl::InvalidArgumentError(absl::StrCat(
      "--activations is '", text, "'; it must be auto or bfloat16"));
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    const std::string& directory, Activations activations) {
  if (Exists(directory, kManifestFile)) {
    if (activations != Activations::kAuto) {
      return absl::InvalidArgumentError(
          absl::StrCat(directory,
                       ": is a converted checkpoint, whose formats say what "
                       "activations are; leave --activations out, or run "
                       "`switchyard convert --format bf16dot`"));
    }
    return OpenConvertedCheckpoint(directory);
  }
  if (Exists(directory, kJournalFile)) {
    return absl::FailedPreconditionError(absl::StrCat(
        directory,
        ": holds an unfinished conversion; run the same `switchyard convert` "
        "again, which goes on where it was"));
  }
  return OpenHuggingFaceCheckpoint(directory, activations);
}

}  // namespace switchyard::model
