// Named threads: every thread of the product is started here, so that top, gdb
// and a crash say which one it was.

#ifndef SWITCHYARD_BASE_THREAD_H_
#define SWITCHYARD_BASE_THREAD_H_

#include <functional>
#include <thread>

#include "absl/strings/string_view.h"

namespace switchyard {

// Starts `body` on a new thread called `name` (the kernel keeps 15 bytes). If
// the system has no thread left to give, the process ends with exit code 1 and
// a line that says so: no caller can do without its thread.
std::thread StartThread(absl::string_view name, std::function<void()> body);

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_THREAD_H_
