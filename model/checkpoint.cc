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

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    const std::string& directory) {
  if (Exists(directory, kManifestFile))
    return OpenConvertedCheckpoint(directory);
  if (Exists(directory, kJournalFile)) {
    return absl::FailedPreconditionError(absl::StrCat(
        directory,
        ": holds an unfinished conversion; run the same `switchyard convert` "
        "again, which goes on where it was"));
  }
  return OpenHuggingFaceCheckpoint(directory);
}

}  // namespace switchyard::model
