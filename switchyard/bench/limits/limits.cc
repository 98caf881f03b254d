#include "switchyard/bench/limits/limits.h"

#include <sys/mman.h>

#include <chrono>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>

#include "switchyard/bench/limits/instructions.h"
#include "switchyard/bench/limits/throughput.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kBufferBytes = int64_t{512} << 20;
// Read at a time, between two looks at whether it is time to stop: some 40 us.
constexpr int64_t kPieceBytes = int64_t{1} << 20;

// Memory of the kernel's, on pages of one size.
class PagedMemory {
 public:
  explicit PagedMemory(PageSize pages) {
    // Room to begin at a multiple of 2 MiB, so that all of it can be huge.
    void* const mapped =
        mmap(nullptr, kBufferBytes + kHugePage, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return;
    mapped_ = static_cast<char*>(mapped);
    const auto address = reinterpret_cast<uintptr_t>(mapped_);
    data_ = mapped_ + (kHugePage - address % kHugePage) % kHugePage;
    madvise(data_, kBufferBytes,
            pages == PageSize::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    // Every page its own: untouched ones would all be one page of zeros.
    for (int64_t i = 0; i < kBufferBytes; i += 4096) data_[i] = 1;
  }
  ~PagedMemory() {
    if (mapped_ != nullptr) munmap(mapped_, kBufferBytes + kHugePage);
  }
  PagedMemory(const PagedMemory&) = delete;
  PagedMemory& operator=(const PagedMemory&) = delete;

  const char* data() const { return data_; }  // null: there is no memory

 private:
  static constexpr int64_t kHugePage = int64_t{2} << 20;
  char* mapped_ = nullptr;
  char* data_ = nullptr;
};

}  // namespace

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::string CpuName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown CPU";
}

const char* OperationName(Operation operation) {
  switch (operation) {
    case Operation::kFmaAvx2:
      return "fma avx2";
    case Operation::kFmaAvx512:
      return "fma avx512";
    case Operation::kBf16Dot:
      return "bf16 dot";
    case Operation::kInt8Avx2:
      return "int8 avx2";
    case Operation::kInt8Vnni:
      return "int8 vnni";
  }
  return "";
}

bool CpuHas(Operation operation) {
  return FindChains(operation).run != nullptr;
}

Operation BestFma() {
  return CpuHas(Operation::kFmaAvx512) ? Operation::kFmaAvx512
                                       : Operation::kFmaAvx2;
}

Operation BestInt8() {
  return CpuHas(Operation::kInt8Vnni) ? Operation::kInt8Vnni
                                      : Operation::kInt8Avx2;
}

Operation BestBf16() {
  return CpuHas(Operation::kBf16Dot) ? Operation::kBf16Dot : BestFma();
}

Rate MeasureOperations(Operation operation, int threads, double seconds) {
  const Chains chains = FindChains(operation);
  if (chains.run == nullptr) return {};
  return MeasureThroughput(threads, seconds, chains.operations,
                           [&chains](int) { chains.run(); });
}

Rate MeasureRead(int threads, PageSize pages, double seconds) {
  const PagedMemory memory(pages);
  if (memory.data() == nullptr) return {};
  const int64_t pieces_each = kBufferBytes / kPieceBytes / threads;
  // A line of its own for each thread's place.
  struct alignas(64) Place {
    int64_t next = 0;
  };
  const auto places = std::make_unique<Place[]>(threads);
  return MeasureThroughput(
      threads, seconds, static_cast<double>(kPieceBytes), [&](int thread) {
        Place& place = places[thread];
        ReadMemory(
            memory.data() + (thread * pieces_each + place.next) * kPieceBytes,
            kPieceBytes);
        place.next = (place.next + 1) % pieces_each;
      });
}

}  // namespace switchyard::bench
