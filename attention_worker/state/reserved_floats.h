// Address space for floats that the kernel backs with memory on first touch.
//
// A sequence may be allowed 262 144 tokens and use 300: its KV cache is laid
// out for the first number and costs the second.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_RESERVED_FLOATS_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_RESERVED_FLOATS_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace switchyard::attention_worker {

// Owns one anonymous private mapping. Move-only; not thread-safe.
class ReservedFloats {
 public:
  // `floats` zeros, from a multiple of 2 MiB on. The first `dense_floats` of
  // them will all be used, so the kernel is asked for huge pages (a table of 4
  // KiB ones costs a third of the bandwidth of reading a long context); the
  // rest are touched little by little and get small ones, so that touching one
  // value commits 4 KiB and not 2 MiB. RESOURCE_EXHAUSTED: no such address
  // range to be had (ulimit -v, or vm.overcommit_memory = 2).
  static absl::StatusOr<ReservedFloats> Create(int64_t floats,
                                               int64_t dense_floats);

  ReservedFloats() = default;
  ReservedFloats(ReservedFloats&& other) noexcept;
  ReservedFloats& operator=(ReservedFloats&& other) noexcept;
  ~ReservedFloats();

  float* data() const { return data_; }
  int64_t size() const { return size_; }

  // Bytes that are in memory now. For tests and reports: asks the kernel about
  // every page.
  int64_t ResidentBytes() const;

 private:
  ReservedFloats(float* data, int64_t size) : data_(data), size_(size) {}

  float* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_RESERVED_FLOATS_H_
