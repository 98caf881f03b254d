// An HTTP/1.1 server: bounded, streaming, on a few named threads.
//
// Above: server.cc plugs openai/ into it. Below: Boost.Beast's parser and
// Asio's sockets (docs/decisions/0040-boost-beast.md), in this folder alone.
// Not here: routes, JSON.

#ifndef SWITCHYARD_ROUTER_HTTP_HTTP_SERVER_H_
#define SWITCHYARD_ROUTER_HTTP_HTTP_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "router/http/http_message.h"

namespace switchyard::router {

// Life: Start() listens and serves; Shutdown() or the destructor ends it.
// Thread-safe.
//
// A client that closes its end of the connection, even half of it, is taken to
// be gone: its answer is dropped and the handler told (ResponseWriter::OnGone).
class HttpServer {
 public:
  // Runs on an I/O thread: must not block. The answer may come later, from any
  // thread.
  using Handler =
      std::function<void(HttpRequest request, std::shared_ptr<ResponseWriter>)>;

  struct Options {
    std::string host =
        "127.0.0.1";  // an address, or a name that resolves to one
    int port = 0;     // 0 picks a free one
    // PEM files: with them, HTTPS and nothing else. Read again within seconds
    // when they change, for connections to come. Both or none.
    std::string certificate_file;
    std::string private_key_file;
    int num_threads = 2;                  // called http-1, http-2, ...
    int64_t max_connections = 4096;       // one more gets 503 at once
    int64_t max_header_bytes = 32 << 10;  // beyond: 431
    int64_t max_body_bytes = 16 << 20;    // beyond: 413
    // Unsent bytes of a streamed answer; beyond: the connection is cut.
    int64_t max_send_buffer_bytes = 1 << 20;
    absl::Duration idle_timeout = absl::Seconds(75);  // between two requests
    absl::Duration read_timeout =
        absl::Seconds(30);  // of one whole request: 408
    absl::Duration write_timeout = absl::Seconds(60);  // without any progress
    // The body of an answer that the server gives by itself (400 for what is
    // not HTTP, 408, 413, 431, 503), and a place to count it.
    std::function<std::string(int status, absl::string_view message)>
        error_body;
    std::function<void(int status)> on_error;
  };

  // UNAVAILABLE: the port is in use. INVALID_ARGUMENT: no such address, or a
  // size or time that is not positive. Both name it. What TlsContext::Create
  // says of the certificate.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(Options options,
                                                           Handler handler);
  virtual ~HttpServer() = default;

  virtual int port() const = 0;
  virtual int64_t num_connections() const = 0;

  // Stops accepting, closes idle connections, and lets answers in progress end;
  // cuts those that have not ended after `grace`. Idempotent. Blocks.
  virtual void Shutdown(absl::Duration grace) = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_HTTP_HTTP_SERVER_H_
