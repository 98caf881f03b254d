#include "model/conversion/target_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/conversion/container.h"
#include "model/manifest.h"

namespace switchyard::model {
namespace {

constexpr int64_t kMaxJournalBytes = 64 << 20;
constexpr double kGigabyte = 1e9;

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// Nothing of somebody else's is written over.
absl::Status CheckNotForeign(const std::string& directory) {
  if (Exists(absl::StrCat(directory, "/", kManifestFile))) {
    return absl::AlreadyExistsError(absl::StrCat(
        directory,
        ": holds a finished conversion (`switchyard verify` checks "
        "it); remove it or choose another directory"));
  }
  if (Exists(absl::StrCat(directory, "/", kJournalFile))) {
    return absl::OkStatus();
  }
  std::error_code error;
  const std::filesystem::directory_iterator first(directory, error);
  if (error) {
    return absl::ErrnoToStatus(error.value(),
                               absl::StrCat("cannot read ", directory));
  }
  if (first == std::filesystem::directory_iterator()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      directory, ": is not empty (it holds ", first->path().filename().string(),
      "), and nothing there says that a conversion was begun; choose a new or "
      "empty directory"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TargetDirectory>> TargetDirectory::Open(
    const std::string& directory, absl::string_view key) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return absl::ErrnoToStatus(error.value(),
                               absl::StrCat("cannot make ", directory));
  }
  SY_RETURN_IF_ERROR(CheckNotForeign(directory));
  const std::string path = absl::StrCat(directory, "/", kJournalFile);
  const int journal =
      open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (journal < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", path));
  }
  auto target = absl::WrapUnique(new TargetDirectory(directory, journal));
  if (flock(journal, LOCK_EX | LOCK_NB) != 0) {
    return absl::UnavailableError(
        absl::StrCat(directory,
                     ": another process is converting into it; wait for it, or "
                     "choose another directory"));
  }
  SY_RETURN_IF_ERROR(target->Resume(key));
  return target;
}

TargetDirectory::~TargetDirectory() { close(journal_); }

std::string TargetDirectory::PathOf(absl::string_view file) const {
  return absl::StrCat(directory_, "/", file);
}

absl::Status TargetDirectory::Resume(absl::string_view key) {
  SY_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(PathOf(kJournalFile), kMaxJournalBytes));
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  // What follows the last line's end: nothing, or a line that a kill cut.
  const std::string cut = lines.back();
  lines.pop_back();
  if (!cut.empty() &&
      ftruncate(journal_, static_cast<off_t>(text.size() - cut.size())) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot cut ", PathOf(kJournalFile)));
  }
  if (lines.empty()) {
    return AppendLine(DumpJson({{"conversion", std::string(key)}}));
  }
  const absl::StatusOr<Json> first = ParseJson(lines[0]);
  if (!first.ok() || !first->is_object() ||
      first->value("conversion", Json()) != std::string(key)) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory_,
                     ": holds an unfinished conversion of another model or to "
                     "another format; remove it, or choose another directory"));
  }
  for (size_t i = 1; i < lines.size(); ++i) {
    const absl::StatusOr<Json> entry = ParseJson(lines[i]);
    // A damaged line costs the work that it stood for, no more.
    if (!entry.ok() || !entry->is_object()) continue;
    const Json file = entry->value("file", Json());
    const Json sums = entry->value("sha256", Json());
    if (!file.is_string() || !sums.is_array()) continue;
    std::vector<std::string> checksums;
    for (const Json& sum : sums) {
      checksums.push_back(sum.is_string() ? sum.get<std::string>() : "");
    }
    finished_[file.get<std::string>()] = std::move(checksums);
  }
  return absl::OkStatus();
}

const std::vector<std::string>* TargetDirectory::Finished(
    const std::string& file, int64_t bytes) const {
  const auto it = finished_.find(file);
  struct stat info;
  if (it == finished_.end() || stat(PathOf(file).c_str(), &info) != 0 ||
      info.st_size != bytes) {
    return nullptr;
  }
  return &it->second;
}

absl::Status TargetDirectory::Append(
    const std::string& file, const std::vector<std::string>& checksums) {
  // The file's name before the line that counts on it.
  SY_RETURN_IF_ERROR(SyncDirectory(directory_));
  return AppendLine(DumpJson({{"file", file}, {"sha256", checksums}}));
}

absl::Status TargetDirectory::AppendLine(const std::string& line) {
  const std::string text = absl::StrCat(line, "\n");
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written =
        write(journal_, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      return absl::ErrnoToStatus(
          errno, absl::StrCat("cannot write ", PathOf(kJournalFile)));
    }
    done += static_cast<size_t>(written);
  }
  if (fsync(journal_) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(
      errno, absl::StrCat("cannot write ", PathOf(kJournalFile)));
}

absl::Status TargetDirectory::CheckRoom(int64_t bytes) const {
  struct statvfs info;
  if (statvfs(directory_.c_str(), &info) != 0) return absl::OkStatus();
  const double room =
      static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize);
  if (static_cast<double>(bytes) <= room) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat(
      "%s: %.2f GB are still to be written, the disk has %.2f GB left: make "
      "room, or choose another disk",
      directory_, static_cast<double>(bytes) / kGigabyte, room / kGigabyte));
}

absl::Status TargetDirectory::RemoveJournal() {
  if (unlink(PathOf(kJournalFile).c_str()) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot remove ", PathOf(kJournalFile)));
  }
  return SyncDirectory(directory_);
}

}  // namespace switchyard::model
