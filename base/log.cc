#include "base/log.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace switchyard {
namespace {

std::atomic<LogLevel> log_level{LogLevel::kInfo};

char Letter(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return 'D';
    case LogLevel::kInfo:
      return 'I';
    case LogLevel::kWarning:
      return 'W';
    case LogLevel::kError:
      return 'E';
  }
  return '?';
}

std::string ThreadName() {
  char name[16] = "?";
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return name;
}

}  // namespace

void SetLogLevel(LogLevel level) {
  log_level.store(level, std::memory_order_relaxed);
}

void Log(LogLevel level, absl::string_view text) {
  if (level < log_level.load(std::memory_order_relaxed)) return;
  const std::string line =
      absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(),
                                    absl::UTCTimeZone()),
                   " ", std::string(1, Letter(level)), " [",
                   absl::Utf8SafeCEscape(ThreadName()), "] ",
                   absl::Utf8SafeCEscape(text), "\n");
  // One write a line: lines of several threads and processes don't mix.
  absl::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = write(STDERR_FILENO, rest.data(), rest.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return;  // nowhere left to complain
    }
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace switchyard
