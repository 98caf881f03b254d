// A file mapped read-only into memory.

#ifndef SWITCHYARD_BASE_MAPPED_FILE_H_
#define SWITCHYARD_BASE_MAPPED_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace switchyard {

// Owns the mapping. Pages are read on first touch. Immutable, so thread-safe.
// A file that is cut while mapped gives SIGBUS: checkpoints must not be edited
// in place while a process serves them.
class MappedFile {
 public:
  // NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT (empty, or a directory),
  // with the path and errno's text.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(
      const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  MappedFile(std::string path, const uint8_t* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  const std::string path_;
  const uint8_t* const data_;
  const size_t size_;
};

// Takes [data, data + bytes) of a read-only mapping out of this process's
// memory, outwards to whole pages. They stay in the kernel's cache while it has
// room; a read brings them back, so this is safe at any time.
void ReleaseMappedPages(const void* data, int64_t bytes);

// Has the kernel read [data, data + bytes) of a mapping into its cache,
// outwards to whole pages, and returns at once. Without it a page that is
// missing is waited for with a few of its neighbours, one such group after the
// other.
void PrefetchMappedPages(const void* data, int64_t bytes);

// The whole file as a string, "" when it is empty. NOT_FOUND etc. as above;
// RESOURCE_EXHAUSTED when it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes);

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_MAPPED_FILE_H_
