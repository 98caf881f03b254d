// The second half of a server's main: wait for a signal, then end in order.
//
// Below: shutdown_signal.h. Not here: how long a drain may take, and what is
// drained.

#ifndef SWITCHYARD_BASE_SERVE_UNTIL_SIGNAL_H_
#define SWITCHYARD_BASE_SERVE_UNTIL_SIGNAL_H_

#include <functional>

#include "absl/status/status.h"

namespace switchyard {

// What a process does that serves; both are called by the thread that waits.
struct ServingProcess {
  // Does not wait: OK once loaded, DEADLINE_EXCEEDED while loading, else why
  // loading failed. Empty: there is nothing to load. Who loads calls
  // RequestShutdown() when it fails.
  std::function<absl::Status()> load_status = nullptr;
  // Ends what is being served. Called once, and only after a complete load.
  std::function<void()> drain;
};

// Waits for SIGTERM, SIGINT or RequestShutdown(), then drains and returns OK.
// If loading had failed: its error, nothing is drained. If it is not done yet:
// ends the process with exit code 0. A second signal ends the process at once.
//
// Before it: BlockShutdownSignals().
absl::Status ServeUntilSignal(const ServingProcess& process);

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_SERVE_UNTIL_SIGNAL_H_
