#include "base/thread.h"

#include <pthread.h>

#include <string>
#include <utility>

namespace switchyard {

std::thread StartThread(absl::string_view name, std::function<void()> body) {
  // The kernel refuses longer names instead of cutting them.
  constexpr size_t kMaxNameBytes = 15;
  return std::thread([short_name = std::string(name.substr(0, kMaxNameBytes)),
                      body = std::move(body)] {
    pthread_setname_np(pthread_self(), short_name.c_str());
    body();
  });
}

}  // namespace switchyard
