// The directory that a conversion fills, and the journal by which a run that
// was cut goes on.

#ifndef SWITCHYARD_MODEL_CONVERSION_TARGET_DIRECTORY_H_
#define SWITCHYARD_MODEL_CONVERSION_TARGET_DIRECTORY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::model {

// The journal, kJournalFile, is lines of JSON: first the key of the conversion,
// then a finished file each. This holds its lock for its life. One thread.
class TargetDirectory {
 public:
  // Makes `directory` (and those above it) where it is missing. `key` names
  // what is being written: a journal with the same key is gone on with.
  // ALREADY_EXISTS: a finished conversion. FAILED_PRECONDITION: files that are
  // not a conversion's, or a conversion with another key; none is touched.
  // UNAVAILABLE: another process is writing there. All say what to do.
  static absl::StatusOr<std::unique_ptr<TargetDirectory>> Open(
      const std::string& directory, absl::string_view key);
  ~TargetDirectory();
  TargetDirectory(const TargetDirectory&) = delete;
  TargetDirectory& operator=(const TargetDirectory&) = delete;

  // The checksums of a file that an earlier run finished and that is still
  // there with `bytes` bytes; null otherwise.
  const std::vector<std::string>* Finished(const std::string& file,
                                           int64_t bytes) const;
  // The file has its name and its bytes are on the disk.
  absl::Status Append(const std::string& file,
                      const std::vector<std::string>& checksums);
  // RESOURCE_EXHAUSTED: the file system has less than `bytes` bytes left.
  absl::Status CheckRoom(int64_t bytes) const;
  // After the manifest has its name.
  absl::Status RemoveJournal();

  std::string PathOf(absl::string_view file) const;

 private:
  TargetDirectory(std::string directory, int journal)
      : directory_(std::move(directory)), journal_(journal) {}
  absl::Status Resume(absl::string_view key);
  absl::Status AppendLine(const std::string& line);

  const std::string directory_;
  const int journal_;  // a descriptor
  std::map<std::string, std::vector<std::string>> finished_;
};

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_TARGET_DIRECTORY_H_
