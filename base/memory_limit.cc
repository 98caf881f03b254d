#include "base/memory_limit.h"

#include <unistd.h>

#include <algorithm>

#include "base/cgroup.h"

namespace switchyard {

int64_t AvailableMemoryBytes() {
  const int64_t physical =
      static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  return std::min(physical, CgroupMemoryLimitBytes().value_or(physical));
}

}  // namespace switchyard
