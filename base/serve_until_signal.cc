#include "base/serve_until_signal.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/shutdown_signal.h"
#include "base/status_macros.h"

namespace switchyard {

absl::Status ServeUntilSignal(const ServingProcess& process) {
  const int signal = WaitForShutdownSignal();
  if (process.load_status) {
    const absl::Status loaded = process.load_status();
    if (absl::IsDeadlineExceeded(loaded)) {
      // Nobody is served yet, and a load of many minutes cannot be interrupted:
      // waiting for its thread would look like a process that hangs.
      LogInfo("told to stop while loading");
      std::_Exit(0);
    }
    SY_RETURN_IF_ERROR(loaded);
  }
  LogInfo(absl::StrCat("draining: signal ", signal));
  process.drain();
  return absl::OkStatus();
}

}  // namespace switchyard
