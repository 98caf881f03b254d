#include "router/http/http_exchange.h"

#include <functional>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "boost/asio/dispatch.hpp"
#include "boost/asio/post.hpp"
#include "router/http/http_connection.h"

namespace switchyard::router {
namespace {

class HttpExchange final : public ResponseWriter {
 public:
  HttpExchange(std::shared_ptr<HttpConnection> connection, uint64_t id,
               bool chunked)
      : connection_(std::move(connection)), id_(id), chunked_(chunked) {}

  ~HttpExchange() override {
    OnStrand([id = id_](HttpConnection* c) { c->EndStream(id, false); });
  }

  void Send(HttpResponse response) override {
    OnStrand(
        [id = id_, response = std::move(response)](HttpConnection* c) mutable {
          c->SendWhole(id, std::move(response));
        });
  }

  void StartStream(const HttpResponse& head) override {
    OnStrand([id = id_, head](HttpConnection* c) { c->BeginStream(id, head); });
  }

  bool Write(std::string data) override {
    if (connection_->gone()) return false;
    if (data.empty()) return true;
    if (chunked_) data = absl::StrFormat("%x\r\n", data.size()) + data + "\r\n";
    if (!connection_->Reserve(static_cast<int64_t>(data.size()))) {
      OnStrand([](HttpConnection* c) { c->Abort(); });
      return false;
    }
    OnStrand([id = id_, data = std::move(data)](HttpConnection* c) mutable {
      c->Append(id, std::move(data));
    });
    return true;
  }

  void Finish() override {
    OnStrand([id = id_](HttpConnection* c) { c->EndStream(id, true); });
  }

  void Post(std::function<void()> function) override {
    HttpServerCore& core = connection_->core();
    ++core.posting;
    if (!core.stopped)
      boost::asio::post(connection_->executor(), std::move(function));
    --core.posting;
  }

  void OnGone(std::function<void()> function) override {
    OnStrand(
        [id = id_, function = std::move(function)](HttpConnection* c) mutable {
          c->SetOnGone(id, std::move(function));
        });
  }

 private:
  // At once if this is the strand already, else as soon as an I/O thread has
  // time.
  template <typename Function>
  void OnStrand(Function function) {
    HttpServerCore& core = connection_->core();
    ++core.posting;
    if (!core.stopped) {
      boost::asio::dispatch(
          connection_->executor(),
          [c = connection_, function = std::move(function)]() mutable {
            function(c.get());
          });
    }
    --core.posting;
  }

  const std::shared_ptr<HttpConnection> connection_;
  const uint64_t id_;
  const bool chunked_;
};

}  // namespace

std::shared_ptr<ResponseWriter> NewHttpExchange(
    std::shared_ptr<HttpConnection> connection, uint64_t id, bool chunked) {
  return std::make_shared<HttpExchange>(std::move(connection), id, chunked);
}

}  // namespace switchyard::router
