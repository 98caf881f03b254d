#include "base/log.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "base/log_settings.h"

namespace switchyard {
namespace {

std::atomic<LogLevel> log_level{LogLevel::kInfo};

std::atomic<LogFormat> log_format{LogFormat::kText};

const char* Name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "unknown";
}

std::string ThreadName() {
  char name[16] = "?";
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return name;
}

std::string TextLine(const std::string& time, LogLevel level,
                     absl::string_view text) {
  return absl::StrCat(
      time, " ",
      std::string(
          1, absl::ascii_toupper(static_cast<unsigned char>(Name(level)[0]))),
      " [", absl::Utf8SafeCEscape(ThreadName()), "] ",
      absl::Utf8SafeCEscape(text), "\n");
}

std::string JsonLine(const std::string& time, LogLevel level,
                     absl::string_view text) {
  return DumpJson({{"time", time},
                   {"level", Name(level)},
                   {"thread", ThreadName()},
                   {"message", std::string(text)}}) +
         "\n";
}

}  // namespace

void SetLogFormat(LogFormat format) {
  log_format.store(format, std::memory_order_relaxed);
}

void SetLogLevel(LogLevel level) {
  log_level.store(level, std::memory_order_relaxed);
}

void Log(LogLevel level, absl::string_view text) {
  if (level < log_level.load(std::memory_order_relaxed)) return;
  const std::string time = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(),
                                            absl::UTCTimeZone());
  const std::string line =
      log_format.load(std::memory_order_relaxed) == LogFormat::kJson
          ? JsonLine(time, level, text)
          : TextLine(time, level, text);
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
