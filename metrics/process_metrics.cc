// The process_* metrics that every Prometheus client library exports, from
// /proc.

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/mapped_file.h"
#include "base/version.h"
#include "metrics/registry.h"

namespace switchyard::metrics {
namespace {

constexpr int64_t kMaxProcFileBytes = 4 << 20;

struct ProcessStat {
  double cpu_seconds = 0;
  double start_seconds = 0;  // after the machine's start
  double virtual_bytes = 0;
  double resident_bytes = 0;
};

// /proc/self/stat, see proc(5). Zeros where it can't be read.
ProcessStat ReadProcessStat() {
  const absl::StatusOr<std::string> text =
      ReadFile("/proc/self/stat", kMaxProcFileBytes);
  if (!text.ok()) return {};
  // The second field is the program's name in brackets, which may hold spaces.
  const size_t name_end = text->rfind(") ");
  if (name_end == std::string::npos) return {};
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(*text).substr(name_end + 2), ' ');
  const auto field = [&](size_t number) {  // as proc(5) counts: from 1
    constexpr size_t kFirst = 3;           // the one after the name
    double value = 0;
    if (number - kFirst < fields.size() &&
        !absl::SimpleAtod(fields[number - kFirst], &value)) {
      value = 0;
    }
    return value;
  };
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));  // a second
  const double page = static_cast<double>(sysconf(_SC_PAGE_SIZE));
  ProcessStat stat;
  stat.cpu_seconds = (field(14) + field(15)) / ticks;  // user, system
  stat.start_seconds = field(22) / ticks;
  stat.virtual_bytes = field(23);
  stat.resident_bytes = field(24) * page;
  return stat;
}

// Unix time of the machine's start, 0 when unknown.
double BootSeconds() {
  const absl::StatusOr<std::string> text =
      ReadFile("/proc/stat", kMaxProcFileBytes);
  if (!text.ok()) return 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    double seconds = 0;
    if (absl::ConsumePrefix(&line, "btime ") &&
        absl::SimpleAtod(line, &seconds)) {
      return seconds;
    }
  }
  return 0;
}

double CountOpenFiles() {
  std::error_code error;
  double count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end;
       !error && it != end; it.increment(error)) {
    ++count;
  }
  return count > 0 ? count - 1 : 0;  // the one that lists the others
}

}  // namespace

void AddProcessMetrics(Registry* registry, const std::string& service) {
  registry
      ->AddGauge("switchyard_build_info",
                 "Always 1; the labels tell which build this is.",
                 {{"version", kVersion}, {"service", service}})
      ->Set(1);

  Gauge* const start = registry->AddGauge(
      "process_start_time_seconds",
      "Start time of the process since unix epoch in seconds.");
  start->Set(BootSeconds() + ReadProcessStat().start_seconds);

  Gauge* const max_files = registry->AddGauge(
      "process_max_fds", "Maximum number of open file descriptors.");
  Gauge* const open_files = registry->AddGauge(
      "process_open_fds", "Number of open file descriptors.");
  Counter* const cpu =
      registry->AddCounter("process_cpu_seconds_total",
                           "Total user and system CPU time spent in seconds.");
  Gauge* const resident = registry->AddGauge("process_resident_memory_bytes",
                                             "Resident memory size in bytes.");
  Gauge* const virtual_memory = registry->AddGauge(
      "process_virtual_memory_bytes", "Virtual memory size in bytes.");
  registry->AddCollector([=] {
    const ProcessStat stat = ReadProcessStat();
    cpu->Increment(stat.cpu_seconds - cpu->value());
    resident->Set(stat.resident_bytes);
    virtual_memory->Set(stat.virtual_bytes);
    open_files->Set(CountOpenFiles());
    rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
      max_files->Set(static_cast<double>(limit.rlim_cur));
    }
  });
}

}  // namespace switchyard::metrics
