#include "attention_worker/state/reserved_floats.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
constexpr int64_t kHugePage = int64_t{2} << 20;

int64_t PageBytes() {
  static const int64_t bytes = sysconf(_SC_PAGESIZE);
  return bytes;
}

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

absl::StatusOr<ReservedFloats> ReservedFloats::Create(int64_t floats,
                                                      int64_t dense_floats) {
  SY_CHECK(floats >= 0);
  SY_CHECK(dense_floats >= 0 && dense_floats <= floats);
  if (floats == 0) return ReservedFloats();
  void* map = MAP_FAILED;
  int error = ENOMEM;
  const int64_t bytes =
      floats <= (std::numeric_limits<int64_t>::max() - kHugePage) / kFloatBytes
          ? floats * kFloatBytes
          : -1;
  // Room to begin at a multiple of a huge page; what is over goes back.
  if (bytes > 0) {
    map = mmap(nullptr, static_cast<size_t>(bytes + kHugePage),
               PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    error = errno;
  }
  if (map == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot reserve address space for ", floats,
        " floats of sequence state: ", std::generic_category().message(error),
        "; lower --state-memory, or lift the limit on virtual memory "
        "(ulimit -v, vm.overcommit_memory)"));
  }
  char* const begin = static_cast<char*>(map);
  char* const data = reinterpret_cast<char*>(
      RoundUp(reinterpret_cast<int64_t>(begin), kHugePage));
  char* const end = data + RoundUp(bytes, PageBytes());
  if (data > begin) munmap(begin, static_cast<size_t>(data - begin));
  char* const mapped_end = begin + RoundUp(bytes + kHugePage, PageBytes());
  if (mapped_end > end) munmap(end, static_cast<size_t>(mapped_end - end));
  // Advice only: a kernel without transparent huge pages refuses it, and then
  // has no huge pages to give either.
  const int64_t dense_bytes = RoundUp(dense_floats * kFloatBytes, PageBytes());
  if (dense_bytes > 0) {
    (void)madvise(data, static_cast<size_t>(dense_bytes), MADV_HUGEPAGE);
  }
  if (dense_bytes < bytes) {
    (void)madvise(data + dense_bytes, static_cast<size_t>(bytes - dense_bytes),
                  MADV_NOHUGEPAGE);
  }
  return ReservedFloats(reinterpret_cast<float*>(data), floats);
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
