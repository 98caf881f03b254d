#include "tests/bench/raw_exchange.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "rpc/address.h"

namespace switchyard::bench {
namespace {

// Of a TCP address: the raw socket's port is the worker's and this.
constexpr int kPortOffset = 1000;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

struct Name {
  sockaddr_storage storage = {};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Name RawName(const std::string& address) {
  Name name;
  if (rpc::IsUnixSocket(address)) {
    auto* const path = reinterpret_cast<sockaddr_un*>(&name.storage);
    path->sun_family = AF_UNIX;
    const std::string raw = address.substr(5) + ".raw";
    std::memcpy(path->sun_path, raw.data(), raw.size());
    name.size = sizeof(sockaddr_un);
    return name;
  }
  auto* const tcp = reinterpret_cast<sockaddr_in*>(&name.storage);
  tcp->sin_family = AF_INET;
  tcp->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int port = 0;
  if (!absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port)) {
    Die("port");
  }
  tcp->sin_port = htons(static_cast<uint16_t>(port + kPortOffset));
  name.size = sizeof(sockaddr_in);
  return name;
}

int NewSocket(const Name& name) {
  const int fd = socket(name.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) Die("socket");
  return fd;
}

void NoDelay(int fd) {
  const int on = 1;
  // Not a TCP socket: nothing to be switched off.
  static_cast<void>(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
}

bool ReadAll(int fd, char* to, size_t n) {
  while (n > 0) {
    const ssize_t got = read(fd, to, n);
    if (got <= 0) return false;
    to += got;
    n -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteAll(int fd, const char* from, size_t n) {
  while (n > 0) {
    const ssize_t put = write(fd, from, n);
    if (put <= 0) return false;
    from += put;
    n -= static_cast<size_t>(put);
  }
  return true;
}

struct Head {
  uint32_t bytes_out;
  uint32_t bytes_back;
};

}  // namespace

int RawListen(const std::string& address) {
  Name name = RawName(address);
  const int fd = NewSocket(name);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd, name.get(), name.size) != 0 || listen(fd, 1) != 0) Die("bind");
  return fd;
}

void RawServe(int listener) {
  std::vector<char> buffer;
  while (true) {
    const int fd = accept(listener, nullptr, nullptr);
    if (fd < 0) Die("accept");
    NoDelay(fd);
    Head head = {};
    while (ReadAll(fd, reinterpret_cast<char*>(&head), sizeof(head))) {
      buffer.resize(std::max<size_t>(
          buffer.size(), std::max(head.bytes_out, head.bytes_back)));
      if (!ReadAll(fd, buffer.data(), head.bytes_out) ||
          !WriteAll(fd, buffer.data(), head.bytes_back)) {
        break;
      }
    }
    close(fd);
  }
}

RawPeers::RawPeers(const std::vector<std::string>& addresses) {
  for (const std::string& address : addresses) {
    Name name = RawName(address);
    const int fd = NewSocket(name);
    if (connect(fd, name.get(), name.size) != 0) Die("connect");
    NoDelay(fd);
    sockets_.push_back(fd);
  }
}

RawPeers::~RawPeers() {
  for (const int fd : sockets_) close(fd);
}

void RawPeers::Exchange(uint32_t bytes_out, uint32_t bytes_back) {
  const Head head = {bytes_out, bytes_back};
  buffer_.resize(std::max<size_t>(
      buffer_.size(), std::max<size_t>(sizeof(head) + bytes_out, bytes_back)));
  for (const int fd : sockets_) {
    std::memcpy(buffer_.data(), &head, sizeof(head));
    if (!WriteAll(fd, buffer_.data(), sizeof(head) + bytes_out)) Die("write");
  }
  for (const int fd : sockets_) {
    if (!ReadAll(fd, buffer_.data(), bytes_back)) Die("read");
  }
}

}  // namespace switchyard::bench
