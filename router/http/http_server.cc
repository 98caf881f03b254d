// The server of http_server.h over Asio's sockets and Beast's request parser.
//
// Threads: NUM_THREADS I/O threads run everything. A connection's state belongs
// to its strand; only `unsent_bytes_` and the table of connections are shared.
// Memory: a connection holds one read buffer, at most one unparsed head, one
// body and one send queue, all bounded by HttpServer::Options.

#include "router/http/http_server.h"

#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "boost/asio/buffer.hpp"
#include "boost/asio/dispatch.hpp"
#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/strand.hpp"
#include "boost/beast/http/error.hpp"
#include "boost/beast/http/parser.hpp"
#include "boost/beast/http/string_body.hpp"

namespace switchyard::router {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Tcp = asio::ip::tcp;
using Strand = asio::strand<asio::io_context::executor_type>;
using Socket = asio::basic_stream_socket<Tcp, Strand>;

constexpr size_t kReadBytes = 16 << 10;
// A connection that is closed by us is read a little longer, so that a client
// that is still sending gets the answer and not a reset.
constexpr absl::Duration kLingerTime = absl::Seconds(2);
// Connections beyond max_connections that may be told so at the same time.
constexpr int64_t kMaxRefusals = 64;
constexpr size_t kMaxBuffersPerWrite = 16;

std::chrono::steady_clock::duration ToSteady(absl::Duration duration) {
  return absl::ToChronoNanoseconds(duration);
}

std::string HeaderSafe(const std::string& text) {
  std::string safe = text;
  for (char& c : safe) {
    if (c == '\r' || c == '\n' || c == '\0') c = ' ';
  }
  return safe;
}

class Connection;

// What all connections share; lives as long as any of them.
struct Core {
  explicit Core(HttpServer::Options o, HttpServer::Handler h)
      : options(std::move(o)),
        handler(std::move(h)),
        acceptor(asio::make_strand(context)),
        retry_timer(acceptor.get_executor()) {}

  const HttpServer::Options options;
  const HttpServer::Handler handler;
  asio::io_context context;
  asio::basic_socket_acceptor<Tcp, Strand> acceptor;
  asio::basic_waitable_timer<std::chrono::steady_clock,
                             asio::wait_traits<std::chrono::steady_clock>,
                             Strand>
      retry_timer;
  std::atomic<bool> draining{false};

  // After the last handler has run, none may be queued: it would hold its
  // connection, which holds this, which holds the queue. Writers announce
  // themselves in `posting` before they look at `stopped`.
  std::atomic<bool> stopped{false};
  std::atomic<int> posting{0};

  Mutex mutex;
  CondVar closed;
  std::map<Connection*, std::weak_ptr<Connection>> open ABSL_GUARDED_BY(mutex);
};

// One client. All functions run on the strand unless they say otherwise.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Core> core, Socket socket)
      : core_(std::move(core)),
        socket_(std::move(socket)),
        read_timer_(socket_.get_executor()),
        write_timer_(socket_.get_executor()) {}

  void Start();
  void Refuse() { Reject(503, "the server has too many open connections"); }
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
  Strand executor() { return socket_.get_executor(); }
  Core& core() { return *core_; }
  bool gone() const { return gone_.load(std::memory_order_relaxed); }
  // Takes room in the send queue; false if there is none.
  bool Reserve(int64_t bytes);

 private:
  enum class State {
    kIdle,      // between two requests; -> kReading, kClosed
    kReading,   // a request is incomplete; -> kHandling, kFlushing (rejected)
    kHandling,  // the handler owes the rest of an answer; -> kFlushing, kClosed
    kFlushing,  // the answer is complete, not all sent; -> kIdle, kClosing
    kClosing,   // all sent, waiting for the client to close; -> kClosed
    kClosed,
  };
  using Timer =
      asio::basic_waitable_timer<std::chrono::steady_clock,
                                 asio::wait_traits<std::chrono::steady_clock>,
                                 Strand>;

  void NextRequest();
  void Read();
  void OnRead(const error_code& error, size_t bytes);
  void OnEndOfInput();
  void Parse();
  void Dispatch();
  void Reject(int status, absl::string_view message);
  void RejectUnparsable(const error_code& error);
  std::string Head(const HttpResponse& response, bool chunked,
                   absl::optional<size_t> length) const;
  void Complete();
  void Enqueue(std::string bytes);
  void StartWriting();
  void OnWritten(const error_code& error, size_t bytes);
  void OnFlushed();
  void LingerThenClose();
  void SetTimer(Timer* timer, absl::Duration timeout,
                void (Connection::*on_expiry)());
  void OnReadTimeout();

  const std::shared_ptr<Core> core_;
  Socket socket_;
  Timer read_timer_;
  Timer write_timer_;

  State state_ = State::kIdle;
  uint64_t request_id_ = 0;  // of the request being handled, on this connection
  absl::optional<http::request_parser<http::string_body>> parser_;
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

// The answer to one request.
class Exchange final : public ResponseWriter {
 public:
  Exchange(std::shared_ptr<Connection> connection, uint64_t id, bool chunked)
      : connection_(std::move(connection)), id_(id), chunked_(chunked) {}

  ~Exchange() override {
    OnStrand([id = id_](Connection* c) { c->EndStream(id, false); });
  }

  void Send(HttpResponse response) override {
    OnStrand([id = id_, response = std::move(response)](Connection* c) mutable {
      c->SendWhole(id, std::move(response));
    });
  }

  void StartStream(const HttpResponse& head) override {
    OnStrand([id = id_, head](Connection* c) { c->BeginStream(id, head); });
  }

  bool Write(std::string data) override {
    if (connection_->gone()) return false;
    if (data.empty()) return true;
    if (chunked_) data = absl::StrFormat("%x\r\n", data.size()) + data + "\r\n";
    if (!connection_->Reserve(static_cast<int64_t>(data.size()))) {
      OnStrand([](Connection* c) { c->Abort(); });
      return false;
    }
    OnStrand([id = id_, data = std::move(data)](Connection* c) mutable {
      c->Append(id, std::move(data));
    });
    return true;
  }

  void Finish() override {
    OnStrand([id = id_](Connection* c) { c->EndStream(id, true); });
  }

  void Post(std::function<void()> function) override {
    Core& core = connection_->core();
    ++core.posting;
    if (!core.stopped) asio::post(connection_->executor(), std::move(function));
    --core.posting;
  }

  void OnGone(std::function<void()> function) override {
    OnStrand([id = id_, function = std::move(function)](Connection* c) mutable {
      c->SetOnGone(id, std::move(function));
    });
  }

 private:
  // At once if this is the strand already, else as soon as an I/O thread has
  // time.
  template <typename Function>
  void OnStrand(Function function) {
    Core& core = connection_->core();
    ++core.posting;
    if (!core.stopped) {
      asio::dispatch(
          connection_->executor(),
          [c = connection_, function = std::move(function)]() mutable {
            function(c.get());
          });
    }
    --core.posting;
  }

  const std::shared_ptr<Connection> connection_;
  const uint64_t id_;
  const bool chunked_;
};

void Connection::Start() {
  error_code ignored;
  socket_.set_option(Tcp::no_delay(true), ignored);
  if (core_->draining) return Abort();
  NextRequest();
}

void Connection::BeginDrain() {
  if (state_ == State::kIdle) Abort();
}

void Connection::Abort() {
  if (state_ == State::kClosed) return;
  const bool owed = state_ == State::kHandling;
  state_ = State::kClosed;
  gone_ = true;
  error_code ignored;
  socket_.close(ignored);
  read_timer_.cancel();
  write_timer_.cancel();
  std::function<void()> on_gone = std::exchange(on_gone_, nullptr);
  {
    MutexLock lock(&core_->mutex);
    core_->open.erase(this);
    core_->closed.SignalAll();
  }
  // Posted: the caller may be the handler itself, in the middle of a Write().
  if (owed && on_gone) asio::post(executor(), std::move(on_gone));
}

void Connection::NextRequest() {
  if (core_->draining) return Abort();
  parser_.emplace();
  parser_->eager(true);
  parser_->header_limit(static_cast<uint32_t>(core_->options.max_header_bytes));
  parser_->body_limit(static_cast<uint64_t>(core_->options.max_body_bytes));
  sent_continue_ = false;
  started_ = false;
  if (unparsed_.empty()) {
    state_ = State::kIdle;
    SetTimer(&read_timer_, core_->options.idle_timeout,
             &Connection::OnReadTimeout);
    return Read();
  }
  state_ = State::kReading;
  SetTimer(&read_timer_, core_->options.read_timeout,
           &Connection::OnReadTimeout);
  // Posted, or a long pipeline would be a deep recursion.
  asio::post(executor(), [self = shared_from_this()] {
    if (self->state_ == State::kReading) self->Parse();
  });
}

void Connection::Read() {
  if (reading_ || end_of_input_ || state_ == State::kClosed) return;
  // While an answer is owed, reading only serves to notice that the client has
  // gone; what it sends ahead is kept up to a bound.
  if (static_cast<int64_t>(unparsed_.size()) >
      core_->options.max_header_bytes) {
    return;
  }
  reading_ = true;
  socket_.async_read_some(
      asio::buffer(read_buffer_),
      [self = shared_from_this()](const error_code& error, size_t bytes) {
        self->reading_ = false;
        self->OnRead(error, bytes);
      });
}

void Connection::OnRead(const error_code& error, size_t bytes) {
  if (state_ == State::kClosed) return;
  if (error) return OnEndOfInput();
  if (state_ == State::kClosing) return Read();  // discarded
  unparsed_.append(read_buffer_.data(), bytes);
  switch (state_) {
    case State::kIdle:
      state_ = State::kReading;
      SetTimer(&read_timer_, core_->options.read_timeout,
               &Connection::OnReadTimeout);
      return Parse();
    case State::kReading:
      return Parse();
    default:
      return Read();
  }
}

void Connection::OnEndOfInput() {
  end_of_input_ = true;
  if (state_ == State::kFlushing) {
    keep_alive_ = false;
    return;
  }
  Abort();
}

void Connection::Parse() {
  error_code error;
  const size_t used = parser_->put(asio::buffer(unparsed_), error);
  unparsed_.erase(0, used);
  if (error && error != http::error::need_more) return RejectUnparsable(error);
  if (!parser_->is_header_done()) return Read();
  if (parser_->is_done()) return Dispatch();
  if (!sent_continue_ &&
      parser_->get()[http::field::expect] == "100-continue") {
    sent_continue_ = true;
    Enqueue("HTTP/1.1 100 Continue\r\n\r\n");
  }
  Read();
}

void Connection::RejectUnparsable(const error_code& error) {
  if (error == http::error::body_limit) {
    return Reject(413, absl::StrCat("the request's body is larger than ",
                                    core_->options.max_body_bytes, " bytes"));
  }
  if (error == http::error::header_limit) {
    return Reject(431, absl::StrCat("the request's headers are larger than ",
                                    core_->options.max_header_bytes, " bytes"));
  }
  Reject(400, absl::StrCat("not an HTTP/1.1 request: ", error.message()));
}

void Connection::OnReadTimeout() {
  if (state_ == State::kReading) {
    return Reject(408, "the request did not arrive in time");
  }
  Abort();
}

void Connection::Dispatch() {
  read_timer_.cancel();
  state_ = State::kHandling;
  ++request_id_;
  auto message = parser_->release();
  keep_alive_ = message.keep_alive() && message.version() >= 11;
  http_1_0_ = message.version() < 11;
  head_only_ = message.method() == http::verb::head;

  HttpRequest request;
  request.method = std::string(message.method_string());
  std::string target(message.target());
  if (const size_t scheme = target.find("://");
      scheme != std::string::npos && target[0] != '/') {
    const size_t path = target.find('/', scheme + 3);
    target = path == std::string::npos ? "/" : target.substr(path);
  }
  const size_t query = target.find('?');
  request.path = target.substr(0, query);
  if (query != std::string::npos) request.query = target.substr(query + 1);
  for (const auto& field : message) {
    std::string name(field.name_string());
    for (char& c : name) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    request.headers.emplace_back(std::move(name), std::string(field.value()));
  }
  request.body = std::move(message.body());
  error_code error;
  if (const auto peer = socket_.remote_endpoint(error); !error) {
    request.peer =
        absl::StrCat(peer.address().to_string(error), ":", peer.port());
  }
  Read();  // from now on, to notice that the client goes away
  core_->handler(std::move(request),
                 std::make_shared<Exchange>(shared_from_this(), request_id_,
                                            !http_1_0_ && !head_only_));
}

void Connection::Reject(int status, absl::string_view message) {
  if (core_->options.on_error) core_->options.on_error(status);
  HttpResponse response;
  response.status = status;
  if (core_->options.error_body) {
    response.body = core_->options.error_body(status, message);
  }
  if (status == 503) response.headers.emplace_back("Retry-After", "1");
  read_timer_.cancel();
  keep_alive_ = false;
  head_only_ = false;
  http_1_0_ = false;
  Enqueue(Head(response, false, response.body.size()) + response.body);
  Complete();
}

std::string Connection::Head(const HttpResponse& response, bool chunked,
                             absl::optional<size_t> length) const {
  std::string head = absl::StrCat(
      "HTTP/1.1 ", response.status, " ",
      std::string(http::obsolete_reason(
          http::int_to_status(static_cast<unsigned>(response.status)))),
      "\r\nDate: ",
      absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(),
                       absl::UTCTimeZone()),
      "\r\n");
  if (response.status != 204) {
    absl::StrAppend(&head, "Content-Type: ", HeaderSafe(response.content_type),
                    "\r\n");
    if (length) absl::StrAppend(&head, "Content-Length: ", *length, "\r\n");
  }
  if (chunked) absl::StrAppend(&head, "Transfer-Encoding: chunked\r\n");
  if (!keep_alive_) absl::StrAppend(&head, "Connection: close\r\n");
  for (const auto& [name, value] : response.headers) {
    absl::StrAppend(&head, HeaderSafe(name), ": ", HeaderSafe(value), "\r\n");
  }
  return head + "\r\n";
}

void Connection::SendWhole(uint64_t id, HttpResponse response) {
  if (id != request_id_ || state_ != State::kHandling || started_) return;
  if (core_->draining) keep_alive_ = false;
  std::string bytes = Head(response, false, response.body.size());
  if (!head_only_ && response.status != 204) bytes += response.body;
  Enqueue(std::move(bytes));
  Complete();
}

void Connection::BeginStream(uint64_t id, const HttpResponse& head) {
  if (id != request_id_ || state_ != State::kHandling || started_) return;
  started_ = true;
  if (core_->draining) keep_alive_ = false;
  Enqueue(Head(head, !http_1_0_, absl::nullopt));
}

bool Connection::Reserve(int64_t bytes) {
  const int64_t before = unsent_bytes_.fetch_add(bytes);
  if (before == 0 || before + bytes <= core_->options.max_send_buffer_bytes) {
    return true;
  }
  unsent_bytes_.fetch_sub(bytes);
  return false;
}

void Connection::Append(uint64_t id, std::string bytes) {
  unsent_bytes_.fetch_sub(static_cast<int64_t>(bytes.size()));
  if (id != request_id_ || state_ != State::kHandling || !started_) return;
  if (head_only_) return;
  Enqueue(std::move(bytes));
}

void Connection::EndStream(uint64_t id, bool complete) {
  if (id != request_id_ || state_ != State::kHandling) return;
  if (!complete || !started_) return Abort();
  if (!http_1_0_ && !head_only_) Enqueue("0\r\n\r\n");
  Complete();
}

void Connection::SetOnGone(uint64_t id, std::function<void()> function) {
  if (id != request_id_) return;
  if (state_ == State::kHandling) {
    on_gone_ = std::move(function);
  } else if (state_ == State::kClosed) {
    asio::post(executor(), std::move(function));
  }
}

void Connection::Complete() {
  state_ = State::kFlushing;
  on_gone_ = nullptr;
  if (send_queue_.empty()) OnFlushed();
}

void Connection::Enqueue(std::string bytes) {
  unsent_bytes_.fetch_add(static_cast<int64_t>(bytes.size()));
  send_queue_.push_back(std::move(bytes));
  StartWriting();
}

void Connection::StartWriting() {
  if (writing_ || send_queue_.empty() || state_ == State::kClosed) return;
  writing_ = true;
  SetTimer(&write_timer_, core_->options.write_timeout, &Connection::Abort);
  std::vector<asio::const_buffer> buffers;
  for (const std::string& piece : send_queue_) {
    const size_t skip = buffers.empty() ? sent_of_front_ : 0;
    buffers.push_back(asio::buffer(piece) + skip);
    if (buffers.size() == kMaxBuffersPerWrite) break;
  }
  socket_.async_write_some(buffers, [self = shared_from_this()](
                                        const error_code& error, size_t bytes) {
    self->writing_ = false;
    self->OnWritten(error, bytes);
  });
}

void Connection::OnWritten(const error_code& error, size_t bytes) {
  if (state_ == State::kClosed) return;
  if (error) return Abort();
  unsent_bytes_.fetch_sub(static_cast<int64_t>(bytes));
  sent_of_front_ += bytes;
  while (!send_queue_.empty() && sent_of_front_ >= send_queue_.front().size()) {
    sent_of_front_ -= send_queue_.front().size();
    send_queue_.pop_front();
  }
  if (!send_queue_.empty()) return StartWriting();
  write_timer_.cancel();
  if (state_ == State::kFlushing) OnFlushed();
}

void Connection::OnFlushed() {
  if (keep_alive_ && !core_->draining) return NextRequest();
  LingerThenClose();
}

void Connection::LingerThenClose() {
  state_ = State::kClosing;
  if (end_of_input_) return Abort();
  error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  unparsed_.clear();
  SetTimer(&read_timer_, kLingerTime, &Connection::Abort);
  Read();
}

void Connection::SetTimer(Timer* timer, absl::Duration timeout,
                          void (Connection::*on_expiry)()) {
  timer->expires_after(ToSteady(timeout));
  timer->async_wait(
      [self = shared_from_this(), timer, on_expiry](const error_code& error) {
        // A timer that was set anew after this expiry was queued counts anew.
        if (error || timer->expiry() > std::chrono::steady_clock::now()) return;
        if (self->state_ != State::kClosed) (self.get()->*on_expiry)();
      });
}

class BeastHttpServer final : public HttpServer {
 public:
  BeastHttpServer(std::shared_ptr<Core> core, int port)
      : core_(std::move(core)),
        work_(core_->context.get_executor()),
        port_(port) {
    for (int i = 1; i <= core_->options.num_threads; ++i) {
      threads_.push_back(StartThread(absl::StrCat("http-", i),
                                     [core = core_] { core->context.run(); }));
    }
    asio::post(core_->acceptor.get_executor(),
               [core = core_] { Accept(core); });
  }

  ~BeastHttpServer() override { Shutdown(absl::ZeroDuration()); }

  int port() const override { return port_; }

  int64_t num_connections() const override {
    MutexLock lock(&core_->mutex);
    return static_cast<int64_t>(core_->open.size());
  }

  void Shutdown(absl::Duration grace) override;

 private:
  static void Accept(const std::shared_ptr<Core>& core);
  static void Admit(const std::shared_ptr<Core>& core, Socket socket);
  // Runs `function` on the strand of every open connection.
  void ForAll(void (Connection::*function)());
  bool WaitUntilAllClosed(absl::Time deadline);

  const std::shared_ptr<Core> core_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  const int port_;
  std::vector<std::thread> threads_;  // empty after Shutdown
};

void BeastHttpServer::Accept(const std::shared_ptr<Core>& core) {
  core->acceptor.async_accept(
      asio::make_strand(core->context),
      [core](const error_code& error, Socket socket) {
        if (!core->acceptor.is_open()) return;
        if (!error) {
          Admit(core, std::move(socket));
          return Accept(core);
        }
        // Out of file descriptors, most likely: they come back.
        core->retry_timer.expires_after(std::chrono::milliseconds(100));
        core->retry_timer.async_wait([core](const error_code& cancelled) {
          if (!cancelled && core->acceptor.is_open()) Accept(core);
        });
      });
}

void BeastHttpServer::Admit(const std::shared_ptr<Core>& core, Socket socket) {
  auto connection = std::make_shared<Connection>(core, std::move(socket));
  bool refuse = false;
  {
    MutexLock lock(&core->mutex);
    const int64_t open = static_cast<int64_t>(core->open.size());
    if (open >= core->options.max_connections + kMaxRefusals) return;
    refuse = open >= core->options.max_connections;
    core->open[connection.get()] = connection;
  }
  asio::post(connection->executor(), [connection, refuse] {
    refuse ? connection->Refuse() : connection->Start();
  });
}

void BeastHttpServer::ForAll(void (Connection::*function)()) {
  std::vector<std::shared_ptr<Connection>> connections;
  {
    MutexLock lock(&core_->mutex);
    for (const auto& [key, weak] : core_->open) {
      if (auto connection = weak.lock()) {
        connections.push_back(std::move(connection));
      }
    }
  }
  for (auto& connection : connections) {
    asio::post(connection->executor(),
               [connection, function] { (connection.get()->*function)(); });
  }
}

bool BeastHttpServer::WaitUntilAllClosed(absl::Time deadline) {
  MutexLock lock(&core_->mutex);
  while (!core_->open.empty()) {
    if (!core_->closed.WaitUntil(&core_->mutex, deadline)) {
      return core_->open.empty();
    }
  }
  return true;
}

void BeastHttpServer::Shutdown(absl::Duration grace) {
  if (threads_.empty()) return;
  core_->draining = true;
  asio::post(core_->acceptor.get_executor(), [core = core_] {
    error_code ignored;
    core->acceptor.close(ignored);
    core->retry_timer.cancel();
  });
  ForAll(&Connection::BeginDrain);
  if (!WaitUntilAllClosed(absl::Now() + grace)) {
    // Twice, for connections that were being accepted meanwhile. The I/O
    // threads do not block, so this takes no time worth a longer deadline.
    for (int i = 0; i < 2; ++i) {
      ForAll(&Connection::Abort);
      if (WaitUntilAllClosed(absl::Now() + absl::Seconds(5))) break;
    }
  }
  work_.reset();
  core_->context.stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  core_->stopped = true;
  while (core_->posting > 0) std::this_thread::yield();  // microseconds
  // Runs what was posted last.
  core_->context.restart();
  core_->context.poll();
}

absl::Status CheckOptions(const HttpServer::Options& o) {
  if (o.port < 0 || o.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("port ", o.port, " is not in [0, 65535]"));
  }
  if (o.num_threads < 1 || o.max_connections < 1 || o.max_header_bytes < 256 ||
      o.max_header_bytes > (16 << 20) || o.max_body_bytes < 1 ||
      o.max_send_buffer_bytes < 1) {
    return absl::InvalidArgumentError(
        "HTTP server: threads, connections and byte limits must be positive, "
        "and the header limit between 256 bytes and 16 MiB");
  }
  if (o.idle_timeout <= absl::ZeroDuration() ||
      o.read_timeout <= absl::ZeroDuration() ||
      o.write_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("HTTP server: timeouts must be positive");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options,
                                                              Handler handler) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  const std::string where = absl::StrCat(options.host, ":", options.port);
  const int wanted_port = options.port;
  auto core = std::make_shared<Core>(std::move(options), std::move(handler));

  error_code error;
  asio::ip::tcp::resolver resolver(core->context);
  const auto found =
      resolver.resolve(core->options.host, std::to_string(wanted_port),
                       Tcp::resolver::passive, error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot listen on ", where,
                                                   ": no such address (",
                                                   error.message(), ")"));
  }
  const Tcp::endpoint endpoint = found.begin()->endpoint();
  core->acceptor.open(endpoint.protocol(), error);
  if (!error) {
    core->acceptor.set_option(asio::socket_base::reuse_address(true), error);
  }
  if (!error) core->acceptor.bind(endpoint, error);
  if (!error) {
    core->acceptor.listen(asio::socket_base::max_listen_connections, error);
  }
  if (error == asio::error::address_in_use) {
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on ", where,
        ": the port is in use by another process; choose another --port"));
  }
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on ", where, ": ", error.message()));
  }
  const int port = core->acceptor.local_endpoint(error).port();
  return std::make_unique<BeastHttpServer>(std::move(core), port);
}

}  // namespace switchyard::router
