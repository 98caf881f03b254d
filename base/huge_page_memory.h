// Memory in large pages, for weights: a table of 4 KiB pages for tens of
// gigabytes costs a good part of the memory's bandwidth in look-ups.

#ifndef SWITCHYARD_BASE_HUGE_PAGE_MEMORY_H_
#define SWITCHYARD_BASE_HUGE_PAGE_MEMORY_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

// Owns a range of addresses that begins at a multiple of 2 MiB and reads as
// zeros; memory is taken where Populate or a write touches it. The kernel is
// asked for 2 MiB pages (transparent ones: no set-up by an administrator), and
// to deal the pages out over the NUMA nodes of this thread's CPUs, if these are
// of several, since every thread will read everything. Whether it complies,
// huge_bytes() tells. Distinct parts may be used by distinct threads.
class HugePageMemory {
 public:
  static constexpr int64_t kPageBytes = int64_t{2} << 20;

  // RESOURCE_EXHAUSTED: no such range of addresses (ulimit -v). `bytes` > 0.
  static absl::StatusOr<std::unique_ptr<HugePageMemory>> Reserve(int64_t bytes);
  ~HugePageMemory();
  HugePageMemory(const HugePageMemory&) = delete;
  HugePageMemory& operator=(const HugePageMemory&) = delete;

  uint8_t* data() const { return data_; }
  int64_t size() const { return size_; }

  // Takes memory for [begin, end) now. Several threads at once are faster.
  // RESOURCE_EXHAUSTED if there is none; on kernels before 5.14 the first write
  // finds that out.
  absl::Status Populate(int64_t begin, int64_t end) const;

  // How much lies in large pages, as the kernel says; -1 if it does not say.
  // Reads /proc: not for hot paths. Pages right beside this memory may count.
  int64_t huge_bytes() const;

 private:
  HugePageMemory(uint8_t* data, int64_t size) : data_(data), size_(size) {}

  uint8_t* const data_;
  const int64_t size_;  // a multiple of kPageBytes
};

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_HUGE_PAGE_MEMORY_H_
