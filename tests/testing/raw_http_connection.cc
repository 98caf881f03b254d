#include "tests/testing/raw_http_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace switchyard::testing {
namespace {

constexpr int kWaitMilliseconds = 60'000;

bool WaitFor(int socket, short events) {
  pollfd waited = {socket, events, 0};
  return poll(&waited, 1, kWaitMilliseconds) == 1;
}

}  // namespace

std::unique_ptr<RawHttpConnection> RawHttpConnection::Connect(
    int port, int receive_buffer_bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return nullptr;
  if (receive_buffer_bytes > 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes,
               sizeof(receive_buffer_bytes));
  }
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
      0) {
    close(fd);
    return nullptr;
  }
  return std::unique_ptr<RawHttpConnection>(new RawHttpConnection(fd));
}

RawHttpConnection::~RawHttpConnection() { Close(); }

void RawHttpConnection::Close() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

bool RawHttpConnection::Send(absl::string_view bytes) {
  while (!bytes.empty()) {
    if (!WaitFor(socket_, POLLOUT)) return false;
    const ssize_t sent =
        send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool RawHttpConnection::Request(absl::string_view method,
                                absl::string_view path, absl::string_view body,
                                absl::string_view headers) {
  std::string text =
      absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: test\r\n", headers);
  if (!body.empty() || method == "POST") {
    absl::StrAppend(&text, "Content-Length: ", body.size(), "\r\n");
  }
  return Send(absl::StrCat(text, "\r\n", body));
}

bool RawHttpConnection::Fill() {
  char buffer[16384];
  while (true) {
    if (!WaitFor(socket_, POLLIN)) return false;
    const ssize_t count = recv(socket_, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (count <= 0) return false;
    unread_.append(buffer, static_cast<size_t>(count));
    return true;
  }
}

absl::optional<std::string> RawHttpConnection::ReadThrough(
    absl::string_view end) {
  size_t at = 0;
  while ((at = unread_.find(end.data(), 0, end.size())) == std::string::npos) {
    if (!Fill()) return absl::nullopt;
  }
  std::string text = unread_.substr(0, at);
  unread_.erase(0, at + end.size());
  return text;
}

absl::optional<std::string> RawHttpConnection::ReadBytes(size_t count) {
  while (unread_.size() < count) {
    if (!Fill()) return absl::nullopt;
  }
  std::string text = unread_.substr(0, count);
  unread_.erase(0, count);
  return text;
}

std::string RawHttpConnection::Head::Get(absl::string_view name) const {
  for (absl::string_view line : absl::StrSplit(text, "\r\n")) {
    if (absl::ConsumePrefix(&line, absl::StrCat(name, ": "))) {
      return std::string(line);
    }
  }
  return "";
}

absl::optional<RawHttpConnection::Head> RawHttpConnection::ReadHead() {
  absl::optional<std::string> text = ReadThrough("\r\n\r\n");
  if (!text) return absl::nullopt;
  Head head;
  head.text = *std::move(text);
  absl::string_view line = head.text;
  if (absl::ConsumePrefix(&line, "HTTP/1.1 ")) {
    head.status = std::atoi(std::string(line.substr(0, 3)).c_str());
  }
  return head;
}

absl::optional<std::string> RawHttpConnection::ReadChunk() {
  const absl::optional<std::string> size = ReadThrough("\r\n");
  if (!size) return absl::nullopt;
  const size_t bytes = std::strtoul(size->c_str(), nullptr, 16);
  absl::optional<std::string> chunk = ReadBytes(bytes);
  if (!chunk || !ReadThrough("\r\n") || bytes == 0) return absl::nullopt;
  return chunk;
}

std::string RawHttpConnection::ReadBody(const Head& head) {
  if (head.Get("Transfer-Encoding") == "chunked") {
    std::string body;
    while (const auto chunk = ReadChunk()) body += *chunk;
    return body;
  }
  size_t length = 0;
  if (absl::SimpleAtoi(head.Get("Content-Length"), &length)) {
    return ReadBytes(length).value_or("");
  }
  return head.status == 204 ? "" : ReadToEnd();
}

RawHttpConnection::Reply RawHttpConnection::ReadReply() {
  Reply reply;
  const absl::optional<Head> head = ReadHead();
  if (!head) return reply;
  reply.status = head->status;
  reply.head = *head;
  reply.body = ReadBody(*head);
  return reply;
}

std::string RawHttpConnection::ReadToEnd() {
  while (Fill()) {
  }
  return std::exchange(unread_, "");
}

RawHttpConnection::Reply HttpGet(int port, absl::string_view path) {
  auto connection = RawHttpConnection::Connect(port);
  if (connection == nullptr || !connection->Request("GET", path)) return {};
  return connection->ReadReply();
}

RawHttpConnection::Reply HttpPost(int port, absl::string_view path,
                                  absl::string_view body) {
  auto connection = RawHttpConnection::Connect(port);
  if (connection == nullptr) return {};
  // A server that refuses the body may answer before it has read it.
  connection->Request("POST", path, body, "Content-Type: application/json\r\n");
  return connection->ReadReply();
}

}  // namespace switchyard::testing
