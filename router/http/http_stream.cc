#include "router/http/http_stream.h"

#include <utility>

#include "boost/asio/post.hpp"
#include "boost/asio/ssl/stream.hpp"

namespace switchyard::router {
namespace {

namespace asio = boost::asio;

class Plain final : public HttpStream {
 public:
  explicit Plain(HttpSocket socket) : socket_(std::move(socket)) {}

  HttpSocket& socket() override { return socket_; }
  void Handshake(std::function<void(const Error&)> done) override {
    done(Error());
  }
  void ReadSome(asio::mutable_buffer buffer, Transferred done) override {
    socket_.async_read_some(buffer, std::move(done));
  }
  void WriteSome(const std::vector<asio::const_buffer>& buffers,
                 Transferred done) override {
    socket_.async_write_some(buffers, std::move(done));
  }
  void EndSending(std::function<void()> done) override {
    Error ignored;
    socket_.shutdown(HttpSocket::shutdown_send, ignored);
    done();
  }

 private:
  HttpSocket socket_;
};

class Tls final : public HttpStream {
 public:
  Tls(HttpSocket socket, std::shared_ptr<asio::ssl::context> context)
      : context_(std::move(context)), stream_(std::move(socket), *context_) {}

  HttpSocket& socket() override { return stream_.next_layer(); }
  void Handshake(std::function<void(const Error&)> done) override {
    stream_.async_handshake(asio::ssl::stream_base::server, std::move(done));
  }
  void ReadSome(asio::mutable_buffer buffer, Transferred done) override {
    stream_.async_read_some(buffer, std::move(done));
  }
  void WriteSome(const std::vector<asio::const_buffer>& buffers,
                 Transferred done) override {
    stream_.async_write_some(buffers, std::move(done));
  }
  void EndSending(std::function<void()> done) override {
    stream_.async_shutdown([done = std::move(done)](const Error&) { done(); });
  }

 private:
  const std::shared_ptr<asio::ssl::context> context_;  // the stream's
  asio::ssl::stream<HttpSocket> stream_;
};

}  // namespace

std::unique_ptr<HttpStream> PlainStream(HttpSocket socket) {
  return std::make_unique<Plain>(std::move(socket));
}

std::unique_ptr<HttpStream> TlsStream(
    HttpSocket socket, std::shared_ptr<asio::ssl::context> context) {
  return std::make_unique<Tls>(std::move(socket), std::move(context));
}

}  // namespace switchyard::router
