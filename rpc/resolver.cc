#include "rpc/resolver.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "rpc/address.h"

namespace switchyard::rpc {

absl::StatusOr<std::vector<std::string>> ResolveAll(absl::string_view address) {
  SY_RETURN_IF_ERROR(CheckAddress(address));
  if (IsUnixSocket(address)) {
    return std::vector<std::string>{std::string(address)};
  }
  const size_t colon = address.rfind(':');
  std::string host(address.substr(0, colon));
  const std::string port(address.substr(colon + 1));
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(absl::StrCat(
        "cannot find the addresses of ", address, ": ", gai_strerror(error)));
  }
  std::set<std::string> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof(text), nullptr,
                    0, NI_NUMERICHOST) != 0) {
      continue;
    }
    addresses.insert(one->ai_family == AF_INET6
                         ? absl::StrCat("[", text, "]:", port)
                         : absl::StrCat(text, ":", port));
  }
  freeaddrinfo(found);
  return std::vector<std::string>(addresses.begin(), addresses.end());
}

}  // namespace switchyard::rpc
