#include "rpc/address.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace switchyard::rpc {
namespace {

constexpr char kUnixPrefix[] = "unix:";

// With the terminating 0.
constexpr size_t kMaxPathBytes = sizeof(sockaddr_un{}.sun_path);

std::string PathOf(absl::string_view address) {
  return std::string(absl::StripPrefix(address, kUnixPrefix));
}

absl::Status SystemError(const std::string& what) {
  return absl::UnavailableError(
      absl::StrCat(what, ": ", std::generic_category().message(errno)));
}

}  // namespace

bool IsUnixSocket(absl::string_view address) {
  return absl::StartsWith(address, kUnixPrefix);
}

absl::Status CheckAddress(absl::string_view address) {
  if (IsUnixSocket(address)) {
    const std::string path = PathOf(address);
    if (path.empty() || path[0] != '/' || path.size() + 1 > kMaxPathBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", address, "\": a socket's address is unix:/path, of at most ",
          kMaxPathBytes - 1, " bytes after the colon"));
    }
    return absl::OkStatus();
  }
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == absl::string_view::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 1 ||
      port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", address, "\" is not an address: host:port or unix:/path"));
  }
  return absl::OkStatus();
}

bool IsLocal(absl::string_view address) {
  return IsUnixSocket(address) || absl::StartsWith(address, "127.") ||
         absl::StartsWith(address, "[::1]") ||
         absl::StartsWith(address, "localhost:");
}

std::string ListeningAddress(const std::string& host, int port) {
  if (IsUnixSocket(host)) return host;
  const bool is_ipv6 = host.find(':') != std::string::npos && host[0] != '[';
  return is_ipv6 ? absl::StrCat("[", host, "]:", port)
                 : absl::StrCat(host, ":", port);
}

std::string TcpHost(const std::string& host) {
  return IsUnixSocket(host) ? "127.0.0.1" : host;
}

absl::Status PrepareUnixSocket(absl::string_view address) {
  const absl::Status valid = CheckAddress(address);
  if (!valid.ok()) return valid;
  const std::string path = PathOf(address);
  struct stat what = {};
  if (lstat(path.c_str(), &what) != 0) {
    // gRPC's own attempt to bind will say what else is wrong.
    return absl::OkStatus();
  }
  if (!S_ISSOCK(what.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot listen on ", address,
        ": a file that is no socket is in the way; remove it or choose another "
        "path"));
  }
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return SystemError("cannot make a socket");
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), path.size());
  const int connected =
      connect(probe, reinterpret_cast<const sockaddr*>(&name), sizeof(name));
  const int error = errno;
  close(probe);
  if (connected == 0 || error != ECONNREFUSED) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, ": ",
                     connected == 0 ? "another process does"
                                    : std::generic_category().message(error)));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return SystemError(
        absl::StrCat("cannot remove the socket that was left at ", path));
  }
  return absl::OkStatus();
}

absl::Status RestrictUnixSocket(absl::string_view address) {
  const std::string path = PathOf(address);
  if (chmod(path.c_str(), S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP) != 0) {
    return SystemError(absl::StrCat("cannot set who may use ", path));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::rpc
