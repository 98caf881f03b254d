#include "switchyard/bench/limits/socket_round_trip.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "switchyard/bench/limits/limits.h"

namespace switchyard::bench {
namespace {

constexpr int kMinExchanges = 10;
constexpr double kStandstillSeconds = 10;

absl::Status SystemError(const char* doing) {
  return absl::UnavailableError(
      absl::StrCat("measuring a socket's round trip: ", doing, ": ",
                   std::generic_category().message(errno)));
}

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

struct Connection {
  Descriptor near, far;
};

absl::StatusOr<Connection> ConnectUnix() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return SystemError("socketpair");
  }
  return Connection{Descriptor(ends[0]), Descriptor(ends[1])};
}

absl::StatusOr<Connection> ConnectTcp() {
  const Descriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (listener.get() < 0 || bind(listener.get(), generic, size) != 0 ||
      listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), generic, &size) != 0) {
    return SystemError("listening on loopback");
  }
  Connection connection;
  connection.near = Descriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connection.near.get() < 0 ||
      connect(connection.near.get(), generic, size) != 0) {
    return SystemError("connecting on loopback");
  }
  connection.far =
      Descriptor(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (connection.far.get() < 0) return SystemError("accept");
  const int on = 1;
  for (const Descriptor* end : {&connection.near, &connection.far}) {
    if (setsockopt(end->get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) !=
        0) {
      return SystemError("TCP_NODELAY");
    }
  }
  return connection;
}

// Sends or receives one message after another on one end.
class End {
 public:
  End(int fd, bool spin) : fd_(fd), flags_(spin ? MSG_DONTWAIT : 0) {}

  bool Write(std::vector<char>& bytes) const {
    return Move(bytes, [this](char* data, size_t size) {
      return send(fd_, data, size, flags_ | MSG_NOSIGNAL);
    });
  }
  // False at the end of the stream too.
  bool Read(std::vector<char>& bytes) const {
    return Move(bytes, [this](char* data, size_t size) {
      return recv(fd_, data, size, flags_);
    });
  }

 private:
  template <typename Call>
  static bool Move(std::vector<char>& bytes, Call call) {
    double give_up = 0;  // a moment, once there was nothing to move
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t moved = call(bytes.data() + done, bytes.size() - done);
      if (moved > 0) {
        done += static_cast<size_t>(moved);
        continue;
      }
      if (moved == 0) return false;
      if (errno == EINTR) continue;
      // Spinning, or SO_RCVTIMEO went by.
      if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
      if (give_up == 0) give_up = Now() + kStandstillSeconds;
      if (Now() > give_up) return false;
    }
    return true;
  }

  const int fd_;
  const int flags_;
};

void LimitWaiting(const Descriptor& end) {
  const timeval limit = {.tv_sec = static_cast<time_t>(kStandstillSeconds),
                         .tv_usec = 0};
  setsockopt(end.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(end.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

void Answer(const SocketExchange& exchange, int fd) {
  const End end(fd, exchange.spin);
  std::vector<char> request(static_cast<size_t>(exchange.request_bytes));
  std::vector<char> reply(static_cast<size_t>(exchange.reply_bytes));
  while (end.Read(request) && end.Write(reply)) {
  }
}

}  // namespace

absl::StatusOr<RoundTrip> MeasureRoundTrip(const SocketExchange& exchange,
                                           double seconds) {
  if (exchange.request_bytes < 1 || exchange.reply_bytes < 1 ||
      exchange.peers < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a round trip of ", exchange.request_bytes, " and ",
                     exchange.reply_bytes, " bytes with ", exchange.peers,
                     " peers cannot be measured; each must be 1 or more"));
  }
  std::vector<Connection> connections;
  for (int i = 0; i < exchange.peers; ++i) {
    SY_ASSIGN_OR_RETURN(Connection connection, exchange.kind == SocketKind::kTcp
                                                   ? ConnectTcp()
                                                   : ConnectUnix());
    LimitWaiting(connection.near);
    LimitWaiting(connection.far);
    connections.push_back(std::move(connection));
  }
  std::vector<std::thread> peers;
  for (const Connection& connection : connections) {
    peers.push_back(StartThread("sy-echo", [&exchange, &connection] {
      Answer(exchange, connection.far.get());
    }));
  }

  std::vector<char> request(static_cast<size_t>(exchange.request_bytes));
  std::vector<char> reply(static_cast<size_t>(exchange.reply_bytes));
  std::vector<double> times;
  bool moving = true;
  const double end = Now() + seconds;
  while (moving && (times.size() < kMinExchanges || Now() < end)) {
    const double start = Now();
    for (const Connection& connection : connections) {
      moving =
          moving && End(connection.near.get(), exchange.spin).Write(request);
    }
    for (const Connection& connection : connections) {
      moving = moving && End(connection.near.get(), exchange.spin).Read(reply);
    }
    times.push_back(Now() - start);
  }
  // The peers' reads end with that.
  for (const Connection& connection : connections) {
    shutdown(connection.near.get(), SHUT_RDWR);
  }
  for (std::thread& peer : peers) peer.join();
  if (!moving) {
    return absl::UnavailableError(
        "measuring a socket's round trip: the connection broke or stood still");
  }
  std::sort(times.begin(), times.end());
  return RoundTrip{times[times.size() / 2], times[times.size() * 99 / 100]};
}

}  // namespace switchyard::bench
