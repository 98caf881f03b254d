// SIGTERM and SIGINT as something that main can wait for.

#ifndef SWITCHYARD_BASE_SHUTDOWN_SIGNAL_H_
#define SWITCHYARD_BASE_SHUTDOWN_SIGNAL_H_

namespace switchyard {

// Blocks SIGTERM and SIGINT in this thread and all threads started later, and
// ignores SIGPIPE. Call first in main.
void BlockShutdownSignals();

// Waits for SIGTERM or SIGINT; returns its number. A second one after that ends
// the process at once.
int WaitForShutdownSignal();

// As if somebody had sent SIGTERM to this process. From any thread.
void RequestShutdown();

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_SHUTDOWN_SIGNAL_H_
