#include "base/cpu_set.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/cgroup.h"
#include "base/status_macros.h"

namespace switchyard {
namespace {

// More than any kernel is built for.
constexpr int kMaxCpus = 64 * CPU_SETSIZE;

absl::StatusOr<std::pair<int, int>> ParseRange(absl::string_view range) {
  const std::pair<absl::string_view, absl::string_view> ends =
      absl::StrSplit(range, absl::MaxSplits('-', 1));
  int first = 0;
  if (!absl::SimpleAtoi(ends.first, &first)) first = -1;
  int last = first;
  if (range.find('-') != absl::string_view::npos &&
      !absl::SimpleAtoi(ends.second, &last)) {
    last = -1;
  }
  if (first < 0 || last < first || last >= kMaxCpus) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", range,
                     "' is no CPU or range of CPUs; give a list "
                     "such as 0-3,8"));
  }
  return std::pair(first, last);
}

}  // namespace

std::vector<int> AffinityCpus() {
  std::vector<int> cpus;
  // The kernel wants a mask as wide as its own: try wider ones until it fits.
  for (int width = CPU_SETSIZE; width <= kMaxCpus; width *= 2) {
    cpu_set_t* const set = CPU_ALLOC(width);
    const size_t bytes = CPU_ALLOC_SIZE(width);
    const bool ok = sched_getaffinity(0, bytes, set) == 0;
    const int error = errno;
    for (int cpu = 0; ok && cpu < width; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (ok || error != EINVAL) break;
  }
  return cpus;
}

int AvailableCpus() {
  int cpus = static_cast<int>(AffinityCpus().size());
  if (cpus < 1) cpus = static_cast<int>(std::thread::hardware_concurrency());
  if (const auto quota = CgroupCpuLimit(); quota.has_value()) {
    cpus = std::min(cpus, static_cast<int>(std::ceil(std::min(*quota, 1e6))));
  }
  return std::max(cpus, 1);
}

absl::StatusOr<std::vector<int>> ParseCpuList(absl::string_view list) {
  std::vector<int> cpus;
  if (list.empty()) return cpus;
  const std::vector<int> allowed = AffinityCpus();
  for (const absl::string_view part : absl::StrSplit(list, ',')) {
    SY_ASSIGN_OR_RETURN(const auto range, ParseRange(part));
    for (int cpu = range.first; cpu <= range.second; ++cpu) {
      if (std::find(cpus.begin(), cpus.end(), cpu) != cpus.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("CPU ", cpu, " is twice in the list '", list, "'"));
      }
      if (std::find(allowed.begin(), allowed.end(), cpu) == allowed.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("CPU ", cpu, " of the list '", list,
                         "' is not one that this process may use (taskset, "
                         "cgroup)"));
      }
      cpus.push_back(cpu);
    }
  }
  return cpus;
}

int ThreadCount(int threads, const std::vector<int>& cpus) {
  if (threads > 0) return threads;
  return cpus.empty() ? AvailableCpus() : static_cast<int>(cpus.size());
}

absl::Status CheckThreads(int threads, const std::vector<int>& cpus) {
  if (threads == 0 || cpus.empty() ||
      cpus.size() == static_cast<size_t>(threads)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--threads is ", threads, ", but --cpus lists ", cpus.size(),
                   " CPUs; give one of them, or as many CPUs as threads"));
}

absl::Status PinThisThread(int cpu) {
  cpu_set_t* const set = CPU_ALLOC(cpu + 1);
  const size_t bytes = CPU_ALLOC_SIZE(cpu + 1);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(cpu, bytes, set);
  const bool ok = sched_setaffinity(0, bytes, set) == 0;
  const int error = errno;
  CPU_FREE(set);
  return ok ? absl::OkStatus()
            : absl::FailedPreconditionError(absl::StrCat(
                  "cannot run a thread on CPU ", cpu,
                  " alone: ", std::generic_category().message(error)));
}

}  // namespace switchyard
