#include "switchyard/logits/npy_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard {
namespace {

static_assert(std::endian::native == std::endian::little,
              "'<f4' below says how floats lie in memory");

// The magic string, version 1.0, the length of the header as 16 bits
// little-endian, and the header: a Python dictionary, padded so that the data
// begins at a multiple of 64.
std::string Header(int64_t rows, int64_t cols) {
  constexpr size_t kPreludeBytes = 10;
  constexpr size_t kAlignment = 64;
  std::string header =
      absl::StrCat("{'descr': '<f4', 'fortran_order': False, 'shape': (", rows,
                   ", ", cols, "), }");
  while ((kPreludeBytes + header.size() + 1) % kAlignment != 0) header += ' ';
  header += '\n';
  std::string file_start = "\x93NUMPY";
  file_start += '\x01';
  file_start += '\x00';
  file_start += static_cast<char>(header.size() & 0xFF);
  file_start += static_cast<char>(header.size() >> 8);
  return file_start + header;
}

}  // namespace

absl::StatusOr<std::unique_ptr<NpyWriter>> NpyWriter::Create(
    const std::string& path, int64_t rows, int64_t cols) {
  // In the same folder, so that the rename stays within one file system.
  std::string temporary = absl::StrCat(path, ".partial-", getpid());
  struct stat info = {};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    if (S_ISDIR(info.st_mode)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " is a directory; name a file to write"));
    }
    temporary = path;  // a rename would replace the device
  }
  const int descriptor =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("cannot create ", temporary));
  }
  std::unique_ptr<NpyWriter> writer(
      new NpyWriter(path, temporary, descriptor, rows * cols));
  const std::string header = Header(rows, cols);
  SY_RETURN_IF_ERROR(writer->Write(header.data(), header.size()));
  return writer;
}

NpyWriter::NpyWriter(std::string path, std::string temporary_path,
                     int descriptor, int64_t values)
    : path_(std::move(path)),
      temporary_path_(std::move(temporary_path)),
      descriptor_(descriptor),
      missing_(values) {}

NpyWriter::~NpyWriter() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!finished_ && temporary_path_ != path_) unlink(temporary_path_.c_str());
}

absl::Status NpyWriter::Append(absl::Span<const float> values) {
  missing_ -= static_cast<int64_t>(values.size());
  SY_CHECK(missing_ >= 0);
  return Write(values.data(), values.size() * sizeof(float));
}

absl::Status NpyWriter::Finish() {
  SY_CHECK(missing_ == 0);
  const bool in_place = temporary_path_ == path_;
  // Before the rename: else a crash could leave the name on an empty file.
  if (!in_place && fsync(descriptor_) != 0) return Error("write");
  if (close(std::exchange(descriptor_, -1)) != 0) return Error("close");
  if (!in_place && std::rename(temporary_path_.c_str(), path_.c_str()) != 0) {
    return Error("rename to its place");
  }
  finished_ = true;
  return absl::OkStatus();
}

absl::Status NpyWriter::Write(const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = write(descriptor_, from, bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      return Error("write");
    }
    from += written;
    bytes -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status NpyWriter::Error(const char* doing) const {
  const int error = errno;
  return absl::ErrnoToStatus(
      error, absl::StrCat("cannot ", doing, " ", path_,
                          temporary_path_ == path_
                              ? ""
                              : absl::StrCat(" (as ", temporary_path_, ")")));
}

}  // namespace switchyard
