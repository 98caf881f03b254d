#include "base/huge_page_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/cpu_set.h"

namespace switchyard {
namespace {

// Of linux/mempolicy.h, which Debian's libc headers do not bring.
constexpr int kMpolInterleave = 3;
// More nodes than Linux has.
constexpr int kMaxNodes = 1024;
constexpr int kBitsPerWord = 64;

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// NUMA nodes of the CPUs that this thread may use, ascending.
std::vector<int> Nodes() {
  std::vector<bool> has(kMaxNodes);
  for (const int cpu : AffinityCpus()) {
    for (int node = 0; node < kMaxNodes; ++node) {
      // Nodes are numbered without gaps, but for rare machines.
      if (has[node]) continue;
      if (!IsDirectory(absl::StrCat("/sys/devices/system/node/node", node))) {
        if (node > 0) break;
        continue;
      }
      has[node] = IsDirectory(
          absl::StrCat("/sys/devices/system/node/node", node, "/cpu", cpu));
    }
  }
  std::vector<int> nodes;
  for (int node = 0; node < kMaxNodes; ++node) {
    if (has[node]) nodes.push_back(node);
  }
  return nodes;
}

// Advice, like all here but the mapping itself: if the kernel refuses, memory
// is slower, not wrong.
void Interleave(void* data, int64_t size) {
  const std::vector<int> nodes = Nodes();
  if (nodes.size() < 2) return;
  std::vector<uint64_t> mask(kMaxNodes / kBitsPerWord);
  for (const int node : nodes) {
    mask[node / kBitsPerWord] |= uint64_t{1} << node % kBitsPerWord;
  }
  syscall(SYS_mbind, data, size, kMpolInterleave, mask.data(), kMaxNodes, 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HugePageMemory>> HugePageMemory::Reserve(
    int64_t bytes) {
  SY_CHECK(bytes > 0);
  const int64_t size = RoundUp(bytes, kPageBytes);
  // Room to begin at a multiple of a page; what is over goes back.
  const int64_t mapped = size + kPageBytes;
  void* const map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot reserve ", mapped >> 20, " MiB of addresses for weights: ",
        std::generic_category().message(errno),
        "; is there a limit on virtual memory (ulimit -v)?"));
  }
  uint8_t* const first = static_cast<uint8_t*>(map);
  const int64_t before = RoundUp(reinterpret_cast<int64_t>(first), kPageBytes) -
                         reinterpret_cast<int64_t>(first);
  uint8_t* const data = first + before;
  if (before > 0) munmap(first, before);
  if (before < kPageBytes) munmap(data + size, kPageBytes - before);
  madvise(data, size, MADV_HUGEPAGE);
  Interleave(data, size);
  return std::unique_ptr<HugePageMemory>(new HugePageMemory(data, size));
}

HugePageMemory::~HugePageMemory() { munmap(data_, size_); }

absl::Status HugePageMemory::Populate(int64_t begin, int64_t end) const {
  SY_CHECK(begin >= 0 && begin <= end && end <= size_);
  const int64_t page = sysconf(_SC_PAGESIZE);
  begin = begin / page * page;
  end = RoundUp(end, page);
  if (begin == end) return absl::OkStatus();
  if (madvise(data_ + begin, end - begin, MADV_POPULATE_WRITE) == 0 ||
      errno == EINVAL) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "no memory for ", (end - begin) >> 20,
      " MiB of weights: ", std::generic_category().message(errno)));
}

int64_t HugePageMemory::huge_bytes() const {
  std::FILE* const file = std::fopen("/proc/self/smaps", "re");
  if (file == nullptr) return -1;
  const uint64_t begin = reinterpret_cast<uint64_t>(data_);
  const uint64_t end = begin + static_cast<uint64_t>(size_);
  int64_t bytes = -1;
  bool ours = false;
  char line[512];
  while (std::fgets(line, sizeof(line), file) != nullptr) {
    uint64_t from = 0, to = 0;
    int64_t kilobytes = 0;
    if (std::sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2) {
      ours = from < end && to > begin;
    } else if (ours &&
               std::sscanf(line, "AnonHugePages: %" SCNd64, &kilobytes) == 1) {
      bytes = std::max<int64_t>(bytes, 0) + kilobytes * 1024;
    }
  }
  std::fclose(file);
  return bytes < 0 ? bytes : std::min(bytes, size_);
}

}  // namespace switchyard
