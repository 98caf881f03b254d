#include "model/conversion/container.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace switchyard::model {
namespace {

constexpr int64_t kDataAlignment = 4096;
constexpr size_t kLengthBytes = 8;

int64_t RoundUp(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

ContainerPlan PlanContainer(std::vector<ContainerTensor> tensors,
                            int64_t tensor_alignment) {
  ContainerPlan plan;
  Json header = Json::object();
  header["__metadata__"] = {{"format", "pt"}};
  int64_t end = 0;
  const auto add = [&](const std::string& name, const std::string& dtype,
                       const std::vector<int64_t>& shape, int64_t bytes) {
    header[name] = {{"dtype", dtype},
                    {"shape", shape},
                    {"data_offsets", {end, end + bytes}}};
    end += bytes;
  };
  int paddings = 0;
  for (ContainerTensor& tensor : tensors) {
    if (const int64_t gap = RoundUp(end, tensor_alignment) - end; gap > 0) {
      add(absl::StrCat("padding.", paddings++), "U8", {gap}, gap);
    }
    tensor.offset = end;
    add(tensor.name, tensor.dtype, tensor.shape, tensor.bytes);
  }
  std::string text = DumpJson(header);
  const int64_t data_begin =
      RoundUp(static_cast<int64_t>(kLengthBytes + text.size()), kDataAlignment);
  text.resize(static_cast<size_t>(data_begin) - kLengthBytes, ' ');
  for (size_t i = 0; i < kLengthBytes; ++i) {
    plan.header += static_cast<char>(text.size() >> (8 * i) & 0xFF);
  }
  plan.header += text;
  for (ContainerTensor& tensor : tensors) tensor.offset += data_begin;
  plan.tensors = std::move(tensors);
  plan.file_bytes = data_begin + end;
  return plan;
}

OutputFile::OutputFile(std::string path, int descriptor)
    : path_(std::move(path)),
      partial_path_(absl::StrCat(path_, ".partial")),
      descriptor_(descriptor) {}

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(std::string path,
                                                               int64_t bytes) {
  const std::string partial = absl::StrCat(path, ".partial");
  const int descriptor =
      open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", partial));
  }
  auto file = absl::WrapUnique(new OutputFile(std::move(path), descriptor));
  // fallocate and not posix_fallocate, which would write zeros where the file
  // system cannot reserve. There the disk's end shows later.
  if (bytes > 0 && fallocate(descriptor, 0, 0, bytes) != 0 &&
      errno != EOPNOTSUPP && errno != ENOSYS) {
    return file->Error(errno,
                       absl::StrCat("reserve ", bytes, " bytes for").c_str());
  }
  return file;
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!finished_) unlink(partial_path_.c_str());
}

absl::Status OutputFile::Error(int error, const char* doing) const {
  const absl::Status status = absl::ErrnoToStatus(
      error, absl::StrCat("cannot ", doing, " ", partial_path_));
  if (error != ENOSPC && error != EDQUOT && error != EFBIG) return status;
  return absl::ResourceExhaustedError(
      absl::StrCat(status.message(),
                   ": make room, or choose another disk, and run the same "
                   "command again: finished files are kept"));
}

absl::Status OutputFile::Write(int64_t offset,
                               absl::Span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t written =
        pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (written < 0) {
      if (errno == EINTR) continue;
      return Error(errno, "write");
    }
    offset += written;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Finish() {
  // Before the rename: else a crash could leave the name on an empty file.
  if (fsync(descriptor_) != 0) return Error(errno, "write");
  if (close(std::exchange(descriptor_, -1)) != 0) return Error(errno, "close");
  if (std::rename(partial_path_.c_str(), path_.c_str()) != 0) {
    return Error(errno, "rename to its place");
  }
  finished_ = true;
  return absl::OkStatus();
}

absl::Status WriteWholeFile(const std::string& path,
                            absl::string_view content) {
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<OutputFile> file,
                      OutputFile::Create(path, 0));
  SY_RETURN_IF_ERROR(file->Write(
      0, absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(content.data()),
                             content.size())));
  return file->Finish();
}

absl::Status SyncDirectory(const std::string& directory) {
  const int descriptor =
      open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", directory));
  }
  const int error = fsync(descriptor) == 0 ? 0 : errno;
  close(descriptor);
  // Some file systems cannot, and then need not.
  if (error == 0 || error == EINVAL) return absl::OkStatus();
  return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", directory));
}

}  // namespace switchyard::model
