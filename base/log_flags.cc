#include "base/log_flags.h"

#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/log_settings.h"

ABSL_FLAG(std::string, log_level, "info", "debug, info, warning or error");
ABSL_FLAG(std::string, log_format, "text",
          "text, or json: an object a line, for collectors of logs");

namespace switchyard {
namespace {

absl::Status SetLevel(const std::string& name) {
  for (const auto& [known, level] : {std::pair{"debug", LogLevel::kDebug},
                                     std::pair{"info", LogLevel::kInfo},
                                     std::pair{"warning", LogLevel::kWarning},
                                     std::pair{"error", LogLevel::kError}}) {
    if (name == known) {
      SetLogLevel(level);
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--log-level=", name, ": known are debug, info, warning and error"));
}

}  // namespace

absl::Status SetLogOfFlags() {
  const std::string format = absl::GetFlag(FLAGS_log_format);
  if (format != "text" && format != "json") {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-format=", format, ": known are text and json"));
  }
  SetLogFormat(format == "json" ? LogFormat::kJson : LogFormat::kText);
  return SetLevel(absl::GetFlag(FLAGS_log_level));
}

}  // namespace switchyard
