#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace switchyard {
namespace {

// Closes on scope exit.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

struct OpenedFile {
  FileDescriptor fd;
  int64_t size;  // bytes
};

absl::StatusOr<OpenedFile> OpenRegularFile(const std::string& path) {
  // O_NONBLOCK: opening a FIFO by mistake must not wait for its other end.
  FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  }
  struct stat info;
  if (fstat(fd.get(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot stat ", path));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, S_ISDIR(info.st_mode) ? " is a directory" : " is no plain file",
        ", expected a file"));
  }
  return OpenedFile{std::move(fd), info.st_size};
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(
    const std::string& path) {
  SY_ASSIGN_OR_RETURN(const OpenedFile file, OpenRegularFile(path));
  if (file.size == 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is empty"));
  }
  const size_t size = static_cast<size_t>(file.size);
  void* const data =
      mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd.get(), 0);
  if (data == MAP_FAILED) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot map ", size, " bytes of ", path));
  }
  return absl::WrapUnique(
      new MappedFile(path, static_cast<const uint8_t*>(data), size));
}

MappedFile::~MappedFile() { munmap(const_cast<uint8_t*>(data_), size_); }

namespace {

// Advice: a refusal does not matter.
void Advise(const void* data, int64_t bytes, int advice) {
  static const int64_t kPageBytes = sysconf(_SC_PAGESIZE);
  if (bytes <= 0) return;
  // From the beginning of the first byte's page.
  const auto before = static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) %
                                           static_cast<uintptr_t>(kPageBytes));
  uint8_t* const begin =
      const_cast<uint8_t*>(static_cast<const uint8_t*>(data)) - before;
  madvise(begin, static_cast<size_t>(before + bytes), advice);
}

}  // namespace

void ReleaseMappedPages(const void* data, int64_t bytes) {
  Advise(data, bytes, MADV_DONTNEED);
}

void PrefetchMappedPages(const void* data, int64_t bytes) {
  Advise(data, bytes, MADV_WILLNEED);
}

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes) {
  SY_ASSIGN_OR_RETURN(const OpenedFile file, OpenRegularFile(path));
  const auto too_large = [&] {
    return absl::ResourceExhaustedError(absl::StrCat(
        path, " is larger than the ", max_bytes, " bytes allowed for it"));
  };
  if (file.size > max_bytes) return too_large();
  // Files of /proc and /sys say that they have 0 or 4096 bytes: the end is
  // where read() says so.
  std::string content;
  content.reserve(static_cast<size_t>(file.size));
  char buffer[16384];
  for (;;) {
    const ssize_t count = read(file.fd.get(), buffer, sizeof(buffer));
    if (count < 0) {
      if (errno == EINTR) continue;
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
    }
    if (count == 0) return content;
    if (count > max_bytes - static_cast<int64_t>(content.size())) {
      return too_large();
    }
    content.append(buffer, static_cast<size_t>(count));
  }
}

}  // namespace switchyard
