// One client's connection, from its first byte to its last: requests are read
// and handed to the handler one after the other, answers are sent.
//
// Above: http_server.cc accepts and ends connections; http_exchange.h is what a
// handler sees of one. Below: http_stream.h, Asio's timers, Beast's parser,
// http_codec.h. Not here: which connections are let in.
//
// Memory: a connection holds one read buffer, at most one unparsed head, one
// body and one send queue, all bounded by HttpServer::Options.

#ifndef SWITCHYARD_ROUTER_HTTP_HTTP_CONNECTION_H_
#define SWITCHYARD_ROUTER_HTTP_HTTP_CONNECTION_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "base/mutex.h"
#include "boost/asio/basic_waitable_timer.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/beast/http/parser.hpp"
#include "boost/beast/http/string_body.hpp"
#include "router/http/http_message.h"
#include "router/http/http_server.h"
#include "router/http/http_stream.h"
#include "router/http/tls_context.h"

namespace switchyard::router {

using HttpTimer = boost::asio::basic_waitable_timer<
    std::chrono::steady_clock,
    boost::asio::wait_traits<std::chrono::steady_clock>, HttpStrand>;

class HttpConnection;

// What all connections share; lives as long as any of them.
struct HttpServerCore {
  explicit HttpServerCore(HttpServer::Options o, HttpServer::Handler h)
      : options(std::move(o)),
        handler(std::move(h)),
        acceptor(boost::asio::make_strand(context)),
        retry_timer(acceptor.get_executor()) {}

  const HttpServer::Options options;
  const HttpServer::Handler handler;
  boost::asio::io_context context;
  boost::asio::basic_socket_acceptor<HttpTcp, HttpStrand> acceptor;
  HttpTimer retry_timer;
  // Null: no TLS.
  std::unique_ptr<TlsContext> tls;
  std::atomic<bool> draining{false};

  // After the last handler has run, none may be queued: it would hold its
  // connection, which holds this, which holds the queue. Writers announce
  // themselves in `posting` before they look at `stopped`.
  std::atomic<bool> stopped{false};
  std::atomic<int> posting{0};

  Mutex mutex;
  CondVar closed;
  std::map<HttpConnection*, std::weak_ptr<HttpConnection>> open
      ABSL_GUARDED_BY(mutex);
};

// One client. All functions run on the strand unless they say otherwise.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(std::shared_ptr<HttpServerCore> core,
                 std::unique_ptr<HttpStream> stream)
      : core_(std::move(core)),
        stream_(std::move(stream)),
        read_timer_(executor()),
        write_timer_(executor()) {}

  void Start();
  // Says why, if that can be said at once: not before a TLS handshake.
  void Refuse();
  void BeginDrain();
  // Closes at once; a handler at work is told.
  void Abort();

  // The next four are for the writer of request `id`, ignored if it is over.
  void SendWhole(uint64_t id, HttpResponse response);
  void BeginStream(uint64_t id, const HttpResponse& head);
  void Append(uint64_t id, std::string bytes);
  void EndStream(uint64_t id, bool complete);
  void SetOnGone(uint64_t id, std::function<void()> function);

  // From any thread.
  HttpStrand executor() { return stream_->socket().get_executor(); }
  HttpServerCore& core() { return *core_; }
  bool gone() const { return gone_.load(std::memory_order_relaxed); }
  // Takes room in the send queue; false if there is none.
  bool Reserve(int64_t bytes);

 private:
  static constexpr size_t kReadBytes = 16 << 10;

  enum class State {
    kIdle,      // between two requests; -> kReading, kClosed
    kReading,   // a request is incomplete; -> kHandling, kFlushing (rejected)
    kHandling,  // the handler owes the rest of an answer; -> kFlushing, kClosed
    kFlushing,  // the answer is complete, not all sent; -> kIdle, kClosing
    kClosing,   // all sent, waiting for the client to close; -> kClosed
    kClosed,
  };
  void NextRequest();
  void Read();
  void OnRead(const boost::system::error_code& error, size_t bytes);
  void OnEndOfInput();
  void Parse();
  void Dispatch();
  void Reject(int status, absl::string_view message);
  void RejectUnparsable(const boost::system::error_code& error);
  void Complete();
  void Enqueue(std::string bytes);
  void StartWriting();
  void OnWritten(const boost::system::error_code& error, size_t bytes);
  void OnFlushed();
  void LingerThenClose();
  void SetTimer(HttpTimer* timer, absl::Duration timeout,
                void (HttpConnection::*on_expiry)());
  void OnReadTimeout();

  const std::shared_ptr<HttpServerCore> core_;
  const std::unique_ptr<HttpStream> stream_;
  HttpTimer read_timer_;
  HttpTimer write_timer_;

  State state_ = State::kIdle;
  uint64_t request_id_ = 0;  // of the request being handled, on this connection
  absl::optional<
      boost::beast::http::request_parser<boost::beast::http::string_body>>
      parser_;
  std::array<char, kReadBytes> read_buffer_;
  std::string unparsed_;
  bool reading_ = false;
  bool end_of_input_ = false;
  bool sent_continue_ = false;

  bool keep_alive_ = false;
  bool head_only_ = false;  // the request was HEAD
  bool http_1_0_ = false;
  bool started_ = false;  // the answer's head is queued
  std::function<void()> on_gone_;

  std::deque<std::string> send_queue_;
  size_t sent_of_front_ = 0;
  bool writing_ = false;
  std::atomic<int64_t> unsent_bytes_{0};
  std::atomic<bool> gone_{false};
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_HTTP_HTTP_CONNECTION_H_
