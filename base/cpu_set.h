// Which CPUs this process may use, and binding a thread to one of them.

#ifndef SWITCHYARD_BASE_CPU_SET_H_
#define SWITCHYARD_BASE_CPU_SET_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard {

// CPUs that this process may use: affinity and cgroup quota, rounded up. >= 1.
int AvailableCpus();

// The CPUs of this thread's affinity mask, ascending; empty when it can't be
// read.
std::vector<int> AffinityCpus();

// "0-3,8" as numbers, in the order given; "" is empty. INVALID_ARGUMENT: no
// such list, a CPU twice, or one that this process may not use.
absl::StatusOr<std::vector<int>> ParseCpuList(absl::string_view list);

// What --threads and --cpus mean together: as many threads as given, else as
// there are CPUs in the list, else AvailableCpus().
int ThreadCount(int threads, const std::vector<int>& cpus);
// INVALID_ARGUMENT: both are given and differ.
absl::Status CheckThreads(int threads, const std::vector<int>& cpus);

// This thread runs on `cpu` alone from now on.
absl::Status PinThisThread(int cpu);

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_CPU_SET_H_
