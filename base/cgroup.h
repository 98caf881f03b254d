// What the control groups of this process allow it: containers, systemd slices.
// Used by AvailableCpus() and AvailableMemoryBytes(), which callers want
// instead.

#ifndef SWITCHYARD_BASE_CGROUP_H_
#define SWITCHYARD_BASE_CGROUP_H_

#include <cstdint>
#include <optional>
#include <string>

namespace switchyard {

// Versions 1 and 2, the group itself and its parents as far as they are
// visible; nullopt without a limit. `root` stands before /proc and /sys, for
// tests.

// CPUs: quota over period, 0.5 for half of one.
std::optional<double> CgroupCpuLimit(const std::string& root = "");

std::optional<int64_t> CgroupMemoryLimitBytes(const std::string& root = "");

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_CGROUP_H_
