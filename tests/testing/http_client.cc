#include "tests/testing/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace switchyard::testing {
namespace {

class Socket {
 public:
  Socket() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

absl::Status Failure(absl::string_view what) {
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    return absl::DeadlineExceededError(what);
  }
  return absl::UnavailableError(absl::ErrnoToStatus(errno, what).message());
}

absl::StatusOr<HttpReply> ParseReply(absl::string_view text) {
  const size_t end = text.find("\r\n\r\n");
  constexpr size_t kStatusAt = 9;  // behind "HTTP/1.1 "
  HttpReply reply;
  if (end == absl::string_view::npos || text.substr(0, 7) != "HTTP/1." ||
      !absl::SimpleAtoi(text.substr(kStatusAt, 3), &reply.status)) {
    return absl::InternalError(
        absl::StrCat("no HTTP reply: ", text.substr(0, 200)));
  }
  reply.headers = std::string(text.substr(0, end + 2));
  reply.body = std::string(text.substr(end + 4));
  return reply;
}

}  // namespace

absl::StatusOr<HttpReply> HttpCall(int port, absl::string_view method,
                                   absl::string_view path,
                                   absl::string_view body) {
  const Socket connection;
  const timeval minute = {60, 0};
  setsockopt(connection.get(), SOL_SOCKET, SO_RCVTIMEO, &minute,
             sizeof(minute));
  setsockopt(connection.get(), SOL_SOCKET, SO_SNDTIMEO, &minute,
             sizeof(minute));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(connection.get(), reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) != 0) {
    return Failure(absl::StrCat("cannot connect to port ", port));
  }
  const std::string request = absl::StrCat(
      method, " ", path,
      " HTTP/1.1\r\nHost: localhost\r\nContent-Length: ", body.size(),
      "\r\nConnection: close\r\n\r\n", body);
  absl::string_view rest = request;
  while (!rest.empty()) {
    const ssize_t sent =
        send(connection.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0) return Failure("cannot send");
    rest.remove_prefix(static_cast<size_t>(sent));
  }
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t count = recv(connection.get(), buffer, sizeof(buffer), 0);
    if (count < 0) return Failure("cannot receive");
    if (count == 0) return ParseReply(text);
    text.append(buffer, static_cast<size_t>(count));
  }
}

}  // namespace switchyard::testing
