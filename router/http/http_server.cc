// The server of http_server.h: lets connections in, and ends them.
//
// Threads: NUM_THREADS I/O threads run everything. A connection's state belongs
// to its strand; only its count of unsent bytes and the table of connections
// are shared.

#include "router/http/http_server.h"

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/strand.hpp"
#include "router/http/http_connection.h"

namespace switchyard::router {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// Connections beyond max_connections that may be told so at the same time.
constexpr int64_t kMaxRefusals = 64;

class BeastHttpServer final : public HttpServer {
 public:
  BeastHttpServer(std::shared_ptr<HttpServerCore> core, int port)
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
  static void Accept(const std::shared_ptr<HttpServerCore>& core);
  static void Admit(const std::shared_ptr<HttpServerCore>& core,
                    HttpSocket socket);
  // Runs `function` on the strand of every open connection.
  void ForAll(void (HttpConnection::*function)());
  bool WaitUntilAllClosed(absl::Time deadline);

  const std::shared_ptr<HttpServerCore> core_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  const int port_;
  std::vector<std::thread> threads_;  // empty after Shutdown
};

void BeastHttpServer::Accept(const std::shared_ptr<HttpServerCore>& core) {
  core->acceptor.async_accept(
      asio::make_strand(core->context),
      [core](const error_code& error, HttpSocket socket) {
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

void BeastHttpServer::Admit(const std::shared_ptr<HttpServerCore>& core,
                            HttpSocket socket) {
  auto connection = std::make_shared<HttpConnection>(
      core, core->tls == nullptr
                ? PlainStream(std::move(socket))
                : TlsStream(std::move(socket), core->tls->Current()));
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

void BeastHttpServer::ForAll(void (HttpConnection::*function)()) {
  std::vector<std::shared_ptr<HttpConnection>> connections;
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
  ForAll(&HttpConnection::BeginDrain);
  if (!WaitUntilAllClosed(absl::Now() + grace)) {
    // Twice, for connections that were being accepted meanwhile. The I/O
    // threads do not block, so this takes no time worth a longer deadline.
    for (int i = 0; i < 2; ++i) {
      ForAll(&HttpConnection::Abort);
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
  auto core =
      std::make_shared<HttpServerCore>(std::move(options), std::move(handler));

  if (!core->options.certificate_file.empty() ||
      !core->options.private_key_file.empty()) {
    auto tls = TlsContext::Create(core->options.certificate_file,
                                  core->options.private_key_file);
    if (!tls.ok()) return tls.status();
    core->tls = *std::move(tls);
  }

  error_code error;
  asio::ip::tcp::resolver resolver(core->context);
  const auto found =
      resolver.resolve(core->options.host, std::to_string(wanted_port),
                       HttpTcp::resolver::passive, error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot listen on ", where,
                                                   ": no such address (",
                                                   error.message(), ")"));
  }
  const HttpTcp::endpoint endpoint = found.begin()->endpoint();
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
