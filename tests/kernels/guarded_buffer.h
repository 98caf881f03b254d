// Memory that catches a kernel reading past its end or writing outside it.

#ifndef SWITCHYARD_TESTS_KERNELS_GUARDED_BUFFER_H_
#define SWITCHYARD_TESTS_KERNELS_GUARDED_BUFFER_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/check.h"

namespace switchyard::kernels {

// `bytes` of memory that end `slack` bytes before a page that may not be
// touched, and begin behind bytes of a known pattern (at least one page of
// them). Also the slack holds the pattern. The alignment of data() is whatever
// that gives: a test that walks over sizes walks over alignments too.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t bytes, size_t slack = 0)
      : bytes_(bytes), slack_(slack) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    usable_ = (bytes + slack + page - 1) / page * page + page;
    mapped_ = usable_ + page;
    void* const memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SY_CHECK(memory != MAP_FAILED);
    begin_ = static_cast<unsigned char*>(memory);
    std::memset(begin_, kPattern, usable_);
    SY_CHECK(mprotect(begin_ + usable_, page, PROT_NONE) == 0);
  }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;
  ~GuardedBuffer() { munmap(begin_, mapped_); }

  void* data() { return begin_ + usable_ - slack_ - bytes_; }
  const void* data() const { return begin_ + usable_ - slack_ - bytes_; }
  float* floats() { return static_cast<float*>(data()); }

  // Whether everything around data() still holds the pattern.
  bool GuardsIntact() const {
    const size_t before = usable_ - slack_ - bytes_;
    for (size_t i = 0; i < usable_; ++i) {
      if (i == before) i += bytes_;
      if (i < usable_ && begin_[i] != kPattern) return false;
    }
    return true;
  }

  // Every byte of a buffer that nobody wrote. As a float about -3e-16: no
  // result of these tests.
  static constexpr unsigned char kPattern = 0xa5;

 private:
  const size_t bytes_;
  const size_t slack_;
  size_t usable_ = 0;
  size_t mapped_ = 0;
  unsigned char* begin_ = nullptr;
};

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_TESTS_KERNELS_GUARDED_BUFFER_H_
