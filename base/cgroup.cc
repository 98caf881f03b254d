#include "base/cgroup.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/mapped_file.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxControlFileBytes = 64 << 10;

// The words of a control file; empty when there is no such file.
std::vector<std::string> ReadWords(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxControlFileBytes);
  if (!text.ok()) return {};
  return absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
}

// Where this process is in the hierarchy of `controller` ("" for version 2), as
// /proc/self/cgroup has it in lines of ID:CONTROLLERS:PATH.
std::optional<std::string> GroupPath(const std::string& root,
                                     absl::string_view controller) {
  const absl::StatusOr<std::string> text =
      ReadFile(root + "/proc/self/cgroup", kMaxControlFileBytes);
  if (!text.ok()) return std::nullopt;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::vector<absl::string_view> controllers =
        absl::StrSplit(fields[1], ',');
    if (absl::c_linear_search(controllers, controller)) {
      return std::string(fields[2]);
    }
  }
  return std::nullopt;
}

// Calls `visit` with the folder of the group and of each of its parents up to
// the mount. In a container the path may be that of the host, which isn't
// visible: the mount itself is then the container's group.
void VisitGroupAndParents(
    const std::string& mount, const std::string& group,
    const std::function<void(const std::string& folder)>& visit) {
  std::string path = group;
  for (;;) {
    path = std::string(absl::StripSuffix(path, "/"));
    visit(mount + path);
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return;
    path.resize(slash);
  }
}

template <typename T>
void TakeLeast(std::optional<T>* least, T value) {
  *least = least->has_value() ? std::min(**least, value) : value;
}

}  // namespace

std::optional<double> CgroupCpuLimit(const std::string& root) {
  std::optional<double> limit;
  const auto take = [&](const std::string& quota, const std::string& period) {
    int64_t quota_us = 0;
    int64_t period_us = 0;
    // "max" (version 2) and -1 (version 1) mean no limit.
    if (!absl::SimpleAtoi(quota, &quota_us) || quota_us <= 0) return;
    if (!absl::SimpleAtoi(period, &period_us) || period_us <= 0) return;
    TakeLeast(&limit, static_cast<double>(quota_us) / period_us);
  };
  if (const auto group = GroupPath(root, ""); group.has_value()) {
    VisitGroupAndParents(root + "/sys/fs/cgroup", *group,
                         [&](const std::string& folder) {
                           const auto words = ReadWords(folder + "/cpu.max");
                           if (words.size() == 2) take(words[0], words[1]);
                         });
  }
  if (const auto group = GroupPath(root, "cpu"); group.has_value()) {
    VisitGroupAndParents(
        root + "/sys/fs/cgroup/cpu", *group, [&](const std::string& folder) {
          const auto quota = ReadWords(folder + "/cpu.cfs_quota_us");
          const auto period = ReadWords(folder + "/cpu.cfs_period_us");
          if (quota.size() == 1 && period.size() == 1) {
            take(quota[0], period[0]);
          }
        });
  }
  return limit;
}

std::optional<int64_t> CgroupMemoryLimitBytes(const std::string& root) {
  std::optional<int64_t> limit;
  const auto take = [&](const std::vector<std::string>& words) {
    int64_t bytes = 0;
    // "max" means no limit. Version 1 says it with a number beyond any machine,
    // which needs no care here: callers take the least of it and the RAM.
    if (words.size() == 1 && absl::SimpleAtoi(words[0], &bytes) && bytes > 0) {
      TakeLeast(&limit, bytes);
    }
  };
  if (const auto group = GroupPath(root, ""); group.has_value()) {
    VisitGroupAndParents(root + "/sys/fs/cgroup", *group,
                         [&](const std::string& folder) {
                           take(ReadWords(folder + "/memory.max"));
                         });
  }
  if (const auto group = GroupPath(root, "memory"); group.has_value()) {
    VisitGroupAndParents(root + "/sys/fs/cgroup/memory", *group,
                         [&](const std::string& folder) {
                           take(ReadWords(folder + "/memory.limit_in_bytes"));
                         });
  }
  return limit;
}

}  // namespace switchyard
