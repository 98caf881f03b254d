#include "router/http/http_connection.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "boost/asio/buffer.hpp"
#include "boost/asio/post.hpp"
#include "boost/beast/http/error.hpp"
#include "router/http/http_codec.h"
#include "router/http/http_exchange.h"

namespace switchyard::router {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

// A connection that is closed by us is read a little longer, so that a client
// that is still sending gets the answer and not a reset.
constexpr absl::Duration kLingerTime = absl::Seconds(2);
constexpr size_t kMaxBuffersPerWrite = 16;

}  // namespace

void HttpConnection::Start() {
  error_code ignored;
  stream_->socket().set_option(HttpTcp::no_delay(true), ignored);
  if (core_->draining) return Abort();
  SetTimer(&read_timer_, core_->options.read_timeout, &HttpConnection::Abort);
  stream_->Handshake([self = shared_from_this()](const error_code& error) {
    if (self->state_ == State::kClosed) return;
    error ? self->Abort() : self->NextRequest();
  });
}

void HttpConnection::Refuse() {
  if (core_->tls != nullptr) return Abort();
  Reject(503, "the server has too many open connections");
}

void HttpConnection::BeginDrain() {
  if (state_ == State::kIdle) Abort();
}

void HttpConnection::Abort() {
  if (state_ == State::kClosed) return;
  const bool owed = state_ == State::kHandling;
  state_ = State::kClosed;
  gone_ = true;
  error_code ignored;
  stream_->socket().close(ignored);
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

void HttpConnection::NextRequest() {
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
             &HttpConnection::OnReadTimeout);
    return Read();
  }
  state_ = State::kReading;
  SetTimer(&read_timer_, core_->options.read_timeout,
           &HttpConnection::OnReadTimeout);
  // Posted, or a long pipeline would be a deep recursion.
  asio::post(executor(), [self = shared_from_this()] {
    if (self->state_ == State::kReading) self->Parse();
  });
}

void HttpConnection::Read() {
  if (reading_ || end_of_input_ || state_ == State::kClosed) return;
  // While an answer is owed, reading only serves to notice that the client has
  // gone; what it sends ahead is kept up to a bound.
  if (static_cast<int64_t>(unparsed_.size()) >
      core_->options.max_header_bytes) {
    return;
  }
  reading_ = true;
  stream_->ReadSome(
      asio::buffer(read_buffer_),
      [self = shared_from_this()](const error_code& error, size_t bytes) {
        self->reading_ = false;
        self->OnRead(error, bytes);
      });
}

void HttpConnection::OnRead(const error_code& error, size_t bytes) {
  if (state_ == State::kClosed) return;
  if (error) return OnEndOfInput();
  if (state_ == State::kClosing) return Read();  // discarded
  unparsed_.append(read_buffer_.data(), bytes);
  switch (state_) {
    case State::kIdle:
      state_ = State::kReading;
      SetTimer(&read_timer_, core_->options.read_timeout,
               &HttpConnection::OnReadTimeout);
      return Parse();
    case State::kReading:
      return Parse();
    default:
      return Read();
  }
}

void HttpConnection::OnEndOfInput() {
  end_of_input_ = true;
  if (state_ == State::kFlushing) {
    keep_alive_ = false;
    return;
  }
  Abort();
}

void HttpConnection::Parse() {
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

void HttpConnection::RejectUnparsable(const error_code& error) {
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

void HttpConnection::OnReadTimeout() {
  if (state_ == State::kReading) {
    return Reject(408, "the request did not arrive in time");
  }
  Abort();
}

void HttpConnection::Dispatch() {
  read_timer_.cancel();
  state_ = State::kHandling;
  ++request_id_;
  auto message = parser_->release();
  keep_alive_ = message.keep_alive() && message.version() >= 11;
  http_1_0_ = message.version() < 11;
  head_only_ = message.method() == http::verb::head;

  HttpRequest request = ToHttpRequest(std::move(message));
  error_code error;
  if (const auto peer = stream_->socket().remote_endpoint(error); !error) {
    request.peer =
        absl::StrCat(peer.address().to_string(error), ":", peer.port());
  }
  Read();  // from now on, to notice that the client goes away
  core_->handler(std::move(request),
                 NewHttpExchange(shared_from_this(), request_id_,
                                 !http_1_0_ && !head_only_));
}

void HttpConnection::Reject(int status, absl::string_view message) {
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
  Enqueue(SerializeHead(response, BodyFraming::kLength, keep_alive_) +
          response.body);
  Complete();
}

void HttpConnection::SendWhole(uint64_t id, HttpResponse response) {
  if (id != request_id_ || state_ != State::kHandling || started_) return;
  if (core_->draining) keep_alive_ = false;
  std::string bytes =
      SerializeHead(response, BodyFraming::kLength, keep_alive_);
  if (!head_only_ && response.status != 204) bytes += response.body;
  Enqueue(std::move(bytes));
  Complete();
}

void HttpConnection::BeginStream(uint64_t id, const HttpResponse& head) {
  if (id != request_id_ || state_ != State::kHandling || started_) return;
  started_ = true;
  if (core_->draining) keep_alive_ = false;
  Enqueue(SerializeHead(
      head, http_1_0_ ? BodyFraming::kUntilClose : BodyFraming::kChunked,
      keep_alive_));
}

bool HttpConnection::Reserve(int64_t bytes) {
  const int64_t before = unsent_bytes_.fetch_add(bytes);
  if (before == 0 || before + bytes <= core_->options.max_send_buffer_bytes) {
    return true;
  }
  unsent_bytes_.fetch_sub(bytes);
  return false;
}

void HttpConnection::Append(uint64_t id, std::string bytes) {
  unsent_bytes_.fetch_sub(static_cast<int64_t>(bytes.size()));
  if (id != request_id_ || state_ != State::kHandling || !started_) return;
  if (head_only_) return;
  Enqueue(std::move(bytes));
}

void HttpConnection::EndStream(uint64_t id, bool complete) {
  if (id != request_id_ || state_ != State::kHandling) return;
  if (!complete || !started_) return Abort();
  if (!http_1_0_ && !head_only_) Enqueue("0\r\n\r\n");
  Complete();
}

void HttpConnection::SetOnGone(uint64_t id, std::function<void()> function) {
  if (id != request_id_) return;
  if (state_ == State::kHandling) {
    on_gone_ = std::move(function);
  } else if (state_ == State::kClosed) {
    asio::post(executor(), std::move(function));
  }
}

void HttpConnection::Complete() {
  state_ = State::kFlushing;
  on_gone_ = nullptr;
  if (send_queue_.empty()) OnFlushed();
}

void HttpConnection::Enqueue(std::string bytes) {
  unsent_bytes_.fetch_add(static_cast<int64_t>(bytes.size()));
  send_queue_.push_back(std::move(bytes));
  StartWriting();
}

void HttpConnection::StartWriting() {
  if (writing_ || send_queue_.empty() || state_ == State::kClosed) return;
  writing_ = true;
  SetTimer(&write_timer_, core_->options.write_timeout, &HttpConnection::Abort);
  std::vector<asio::const_buffer> buffers;
  for (const std::string& piece : send_queue_) {
    const size_t skip = buffers.empty() ? sent_of_front_ : 0;
    buffers.push_back(asio::buffer(piece) + skip);
    if (buffers.size() == kMaxBuffersPerWrite) break;
  }
  stream_->WriteSome(buffers, [self = shared_from_this()](
                                  const error_code& error, size_t bytes) {
    self->writing_ = false;
    self->OnWritten(error, bytes);
  });
}

void HttpConnection::OnWritten(const error_code& error, size_t bytes) {
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

void HttpConnection::OnFlushed() {
  if (keep_alive_ && !core_->draining) return NextRequest();
  LingerThenClose();
}

void HttpConnection::LingerThenClose() {
  state_ = State::kClosing;
  if (end_of_input_) return Abort();
  stream_->EndSending([self = shared_from_this()] {});
  unparsed_.clear();
  SetTimer(&read_timer_, kLingerTime, &HttpConnection::Abort);
  Read();
}

void HttpConnection::SetTimer(HttpTimer* timer, absl::Duration timeout,
                              void (HttpConnection::*on_expiry)()) {
  timer->expires_after(absl::ToChronoNanoseconds(timeout));
  timer->async_wait(
      [self = shared_from_this(), timer, on_expiry](const error_code& error) {
        // A timer that was set anew after this expiry was queued counts anew.
        if (error || timer->expiry() > std::chrono::steady_clock::now()) return;
        if (self->state_ != State::kClosed) (self.get()->*on_expiry)();
      });
}

}  // namespace switchyard::router
