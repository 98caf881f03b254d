#include "attention_worker/state/reserved_floats.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

int64_t PageBytes() {
  static const int64_t bytes = sysconf(_SC_PAGESIZE);
  return bytes;
}

}  // namespace

absl::StatusOr<ReservedFloats> ReservedFloats::Create(int64_t floats,
                                                      int64_t dense_floats) {
  SY_CHECK(floats >= 0);
  SY_CHECK(dense_floats >= 0 && dense_floats <= floats);
  if (floats == 0) return ReservedFloats();
  void* data = MAP_FAILED;
  int error = ENOMEM;
  if (floats <= std::numeric_limits<int64_t>::max() / kFloatBytes) {
    data = mmap(nullptr, static_cast<size_t>(floats * kFloatBytes),
                PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    error = errno;
  }
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot reserve address space for ", floats,
        " floats of sequence state: ", std::strerror(error),
        "; lower --state-memory, or lift the limit on virtual memory "
        "(ulimit -v, vm.overcommit_memory)"));
  }
  const int64_t page = PageBytes();
  const int64_t dense_bytes =
      (dense_floats * kFloatBytes + page - 1) / page * page;
  if (dense_bytes < floats * kFloatBytes) {
    // Advice only: a kernel without transparent huge pages refuses it, and then
    // has no huge pages to give either.
    (void)madvise(static_cast<char*>(data) + dense_bytes,
                  static_cast<size_t>(floats * kFloatBytes - dense_bytes),
                  MADV_NOHUGEPAGE);
  }
  return ReservedFloats(static_cast<float*>(data), floats);
}

ReservedFloats::ReservedFloats(ReservedFloats&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

ReservedFloats& ReservedFloats::operator=(ReservedFloats&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

ReservedFloats::~ReservedFloats() {
  if (data_ != nullptr) {
    munmap(data_, static_cast<size_t>(size_ * kFloatBytes));
  }
}

int64_t ReservedFloats::ResidentBytes() const {
  if (data_ == nullptr) return 0;
  const int64_t page = PageBytes();
  std::vector<unsigned char> pages((size_ * kFloatBytes + page - 1) / page);
  SY_CHECK(mincore(data_, static_cast<size_t>(size_ * kFloatBytes),
                   pages.data()) == 0);
  int64_t resident = 0;
  for (unsigned char flags : pages) resident += flags & 1;
  return resident * page;
}

}  // namespace switchyard::attention_worker
