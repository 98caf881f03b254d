#include "base/out_of_memory.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <new>

namespace switchyard {
namespace {

constexpr unsigned long long kMebibyte = 1 << 20;

// The process's address space and memory in MiB; zeros where it is unknown.
struct MemoryInUse {
  unsigned long long address_space = 0;
  unsigned long long resident = 0;
};

MemoryInUse ReadMemoryInUse() {
  MemoryInUse use;
  const int statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (statm < 0) return use;
  char text[128];
  const ssize_t size = read(statm, text, sizeof(text) - 1);
  close(statm);
  if (size <= 0) return use;
  text[size] = '\0';
  char* end = text;
  const unsigned long long page =
      static_cast<unsigned long long>(sysconf(_SC_PAGESIZE));
  use.address_space = std::strtoull(end, &end, 10) * page / kMebibyte;
  use.resident = std::strtoull(end, &end, 10) * page / kMebibyte;
  return use;
}

// Allocates nothing: there may be nothing left.
[[noreturn]] void OutOfMemory() {
  std::set_new_handler(nullptr);
  char thread[16] = "?";
  pthread_getname_np(pthread_self(), thread, sizeof(thread));
  const MemoryInUse use = ReadMemoryInUse();
  rlimit limit = {};
  char limit_text[64] = "no limit on address space";
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    std::snprintf(limit_text, sizeof(limit_text),
                  "address space limited to %llu MiB by ulimit -v",
                  static_cast<unsigned long long>(limit.rlim_cur) / kMebibyte);
  }
  char line[320];
  const int size = std::snprintf(
      line, sizeof(line),
      "out of memory in thread %s: %llu MiB of address space, %llu MiB in "
      "memory (%s); give this process more memory, or lower its budgets (see "
      "--help)\n",
      thread, use.address_space, use.resident, limit_text);
  // Nothing is to be done about a line that cannot be written either.
  (void)!write(STDERR_FILENO, line, static_cast<size_t>(size));
  std::_Exit(1);
}

}  // namespace

void ExitWhenOutOfMemory() { std::set_new_handler(OutOfMemory); }

}  // namespace switchyard
