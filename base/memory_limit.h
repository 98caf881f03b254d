// How much memory this process may use, for budgets that are decided at start.

#ifndef SWITCHYARD_BASE_MEMORY_LIMIT_H_
#define SWITCHYARD_BASE_MEMORY_LIMIT_H_

#include <cstdint>

namespace switchyard {

// The least of the machine's RAM, the limits of this process's cgroup and its
// parents, and its own limit on address space (ulimit -v). Memory that others
// use now is not subtracted.
int64_t AvailableMemoryBytes();

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_MEMORY_LIMIT_H_
