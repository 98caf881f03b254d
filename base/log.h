// One line per event, on stderr: time, level, thread name, text.

#ifndef SWITCHYARD_BASE_LOG_H_
#define SWITCHYARD_BASE_LOG_H_

#include "absl/strings/string_view.h"

namespace switchyard {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Lines below `level` are dropped. kInfo at start. Thread-safe.
void SetLogLevel(LogLevel level);

// Writes one line. `text` is escaped so that it stays one line. Thread-safe.
void Log(LogLevel level, absl::string_view text);

inline void LogInfo(absl::string_view text) { Log(LogLevel::kInfo, text); }
inline void LogWarning(absl::string_view text) {
  Log(LogLevel::kWarning, text);
}
inline void LogError(absl::string_view text) { Log(LogLevel::kError, text); }

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_LOG_H_
