// What log lines look like.

#ifndef SWITCHYARD_BASE_LOG_SETTINGS_H_
#define SWITCHYARD_BASE_LOG_SETTINGS_H_

namespace switchyard {

enum class LogFormat {
  kText,  // for people
  // For machines: one object a line, with time (RFC 3339, UTC), level, thread
  // and message.
  kJson,
};

// kText at start. Thread-safe.
void SetLogFormat(LogFormat format);

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_LOG_SETTINGS_H_
