#include "base/thread.h"

#include <pthread.h>

#include <cstdlib>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace switchyard {

std::thread StartThread(absl::string_view name, std::function<void()> body) {
  // The kernel refuses longer names instead of cutting them.
  constexpr size_t kMaxNameBytes = 15;
  std::string short_name(name.substr(0, kMaxNameBytes));
  try {
    return std::thread([short_name, body = std::move(body)] {
      pthread_setname_np(pthread_self(), short_name.c_str());
      body();
    });
  } catch (const std::system_error& error) {
    LogError(absl::StrCat(
        "cannot start thread ", short_name, ": ", error.what(),
        "; lower --threads, or raise the limit on processes (ulimit -u, the "
        "cgroup's pids.max) or on address space (ulimit -v)"));
    std::_Exit(1);
  }
}

}  // namespace switchyard
