#include "base/memory_limit.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "base/cgroup.h"

namespace switchyard {

int64_t AvailableMemoryBytes() {
  const int64_t physical =
      static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  int64_t available =
      std::min(physical, CgroupMemoryLimitBytes().value_or(physical));
  rlimit limit = {};
  // RLIM_INFINITY is the largest number there is.
  if (getrlimit(RLIMIT_AS, &limit) == 0 &&
      limit.rlim_cur < static_cast<rlim_t>(available)) {
    available = static_cast<int64_t>(limit.rlim_cur);
  }
  return available;
}

}  // namespace switchyard
