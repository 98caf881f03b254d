// An HTTP client that does what it is told, right or wrong, byte by byte.

#ifndef SWITCHYARD_TESTS_TESTING_RAW_HTTP_CONNECTION_H_
#define SWITCHYARD_TESTS_TESTING_RAW_HTTP_CONNECTION_H_

#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace switchyard::testing {

// One connection to 127.0.0.1. Every wait ends after a minute, which a test
// sees as an end of the connection. Not thread-safe.
class RawHttpConnection {
 public:
  // Null if nobody listens. `receive_buffer_bytes` above 0 asks the kernel for
  // a small buffer, so that a reader that does not read is soon noticed.
  static std::unique_ptr<RawHttpConnection> Connect(
      int port, int receive_buffer_bytes = 0);
  ~RawHttpConnection();

  // False if the server closed before all was sent.
  bool Send(absl::string_view bytes);

  // METHOD PATH with Content-Length; `headers` are whole lines.
  bool Request(absl::string_view method, absl::string_view path,
               absl::string_view body = "", absl::string_view headers = "");

  struct Head {
    int status = 0;
    std::string text;  // status line and headers, without the empty line
    // The value of a header, "" without it; `name` as the server writes it.
    std::string Get(absl::string_view name) const;
  };
  // nullopt at the end of the connection.
  absl::optional<Head> ReadHead();
  // The whole body of `head`: by Content-Length, by chunks, or to the end.
  std::string ReadBody(const Head& head);
  // One chunk; nullopt after the last one, or at the end of the connection.
  absl::optional<std::string> ReadChunk();
  // Head and body of the next answer. Status 0 at the end of the connection.
  struct Reply {
    int status = 0;
    Head head;
    std::string body;
  };
  Reply ReadReply();
  // All that comes until the server closes.
  std::string ReadToEnd();
  // Has the server closed, and sent nothing before?
  bool AtEnd() { return ReadToEnd().empty(); }

  void Close();

 private:
  explicit RawHttpConnection(int socket) : socket_(socket) {}
  // Waits for more bytes; false at the end.
  bool Fill();
  absl::optional<std::string> ReadThrough(absl::string_view end);
  absl::optional<std::string> ReadBytes(size_t count);

  int socket_;
  std::string unread_;
};

// GET of a path over a connection of its own.
RawHttpConnection::Reply HttpGet(int port, absl::string_view path);
// POST of a JSON body.
RawHttpConnection::Reply HttpPost(int port, absl::string_view path,
                                  absl::string_view body);

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_RAW_HTTP_CONNECTION_H_
