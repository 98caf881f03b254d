// The bytes of one connection: as they are, or through TLS.
//
// Above: http_connection.h. Below: Asio's sockets, OpenSSL.

#ifndef SWITCHYARD_ROUTER_HTTP_HTTP_STREAM_H_
#define SWITCHYARD_ROUTER_HTTP_HTTP_STREAM_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "boost/asio/basic_stream_socket.hpp"
#include "boost/asio/buffer.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/ssl/context.hpp"
#include "boost/asio/strand.hpp"
#include "boost/system/error_code.hpp"

namespace switchyard::router {

using HttpTcp = boost::asio::ip::tcp;
using HttpStrand = boost::asio::strand<boost::asio::io_context::executor_type>;
using HttpSocket = boost::asio::basic_stream_socket<HttpTcp, HttpStrand>;

// Everything on the socket's strand; handlers come there, too. One read and one
// write at a time. Lives until its last handler has come.
class HttpStream {
 public:
  using Error = boost::system::error_code;
  using Transferred = std::function<void(const Error& error, size_t bytes)>;

  virtual ~HttpStream() = default;

  virtual HttpSocket& socket() = 0;

  // First of all.
  virtual void Handshake(std::function<void(const Error& error)> done) = 0;
  // At least one byte, unless there is an error. Buffers stay until `done`.
  virtual void ReadSome(boost::asio::mutable_buffer buffer,
                        Transferred done) = 0;
  virtual void WriteSome(const std::vector<boost::asio::const_buffer>& buffers,
                         Transferred done) = 0;
  // Tells the peer that nothing more comes; it may still send. `done` comes
  // when that is over, or the socket is closed.
  virtual void EndSending(std::function<void()> done) = 0;
};

std::unique_ptr<HttpStream> PlainStream(HttpSocket socket);
std::unique_ptr<HttpStream> TlsStream(
    HttpSocket socket, std::shared_ptr<boost::asio::ssl::context> context);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_HTTP_HTTP_STREAM_H_
