// MetricsServer over civetweb, the HTTP server that prometheus-cpp itself uses.
// Its C interface, not prometheus::Exposer: that one throws when a port is
// taken and has no place for the probes.

#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "civetweb.h"
#include "metrics/registry.h"

namespace switchyard::metrics {
namespace {

class CivetMetricsServer final : public MetricsServer {
 public:
  CivetMetricsServer(Registry* registry, std::function<Readiness()> readiness)
      : registry_(registry), readiness_(std::move(readiness)) {
    mg_init_library(MG_FEATURES_DEFAULT);
  }

  ~CivetMetricsServer() override {
    if (context_ != nullptr) Stop();
    mg_exit_library();
  }

  absl::Status Listen(const std::string& host, int port) {
    // civetweb takes IPv6 addresses in brackets.
    const bool is_ipv6 = host.find(':') != std::string::npos && host[0] != '[';
    const std::string address = host.empty()
                                    ? absl::StrCat(port)
                                    : absl::StrCat(is_ipv6 ? "[" : "", host,
                                                   is_ipv6 ? "]:" : ":", port);
    // A scraper and two kubelet probes at once, and one to spare.
    const char* options[] = {
        "listening_ports",    address.c_str(), "num_threads", "4",
        "request_timeout_ms", "10000",         nullptr};
    mg_callbacks callbacks = {};
    callbacks.log_message = &KeepMessage;
    context_ = mg_start(&callbacks, this, options);
    if (context_ == nullptr) {
      MutexLock lock(&mutex_);
      return absl::UnavailableError(absl::StrCat(
          "cannot serve metrics on ", address,
          ", the port may be in use; choose another or 0 for any free one (",
          last_message_, ")"));
    }
    mg_server_port listening = {};
    if (mg_get_server_ports(context_, 1, &listening) != 1) {
      return absl::InternalError(
          absl::StrCat("metrics server on ", address, " has no port"));
    }
    port_ = listening.port;
    host_ = host.empty() ? "127.0.0.1" : host;
    mg_set_request_handler(context_, "/metrics$", &HandleMetrics, this);
    mg_set_request_handler(context_, "/livez$", &HandleLive, this);
    mg_set_request_handler(context_, "/readyz$", &HandleReady, this);
    return absl::OkStatus();
  }

  int port() const override { return port_; }

 private:
  // Waits for open requests. civetweb's acceptor looks up every two seconds, or
  // when somebody knocks: so we knock until it has noticed that it should stop.
  void Stop() {
    Mutex mutex;
    CondVar changed;
    bool stopped = false;
    std::thread stopper = StartThread("metrics-stop", [&] {
      mg_stop(context_);
      MutexLock lock(&mutex);
      stopped = true;
      changed.Signal();
    });
    {
      MutexLock lock(&mutex);
      while (!stopped) {
        changed.WaitUntil(&mutex, absl::Now() + absl::Milliseconds(20));
        if (stopped) break;
        char error[128];
        mg_connection* const knock = mg_connect_client(
            host_.c_str(), port_, /*use_ssl=*/0, error, sizeof(error));
        if (knock != nullptr) mg_close_connection(knock);
      }
    }
    stopper.join();
  }

  static int KeepMessage(const mg_connection* connection, const char* message) {
    auto* const self = static_cast<CivetMetricsServer*>(
        mg_get_user_data(mg_get_context(connection)));
    if (self != nullptr) {
      MutexLock lock(&self->mutex_);
      self->last_message_ = message;
    }
    return 1;  // handled: civetweb writes no line of its own
  }

  // Answers GET and HEAD. Returns the status, as civetweb's handlers do.
  static int Reply(mg_connection* connection, int status,
                   absl::string_view content_type, absl::string_view body) {
    const absl::string_view method =
        mg_get_request_info(connection)->request_method;
    absl::string_view reason = status == 200 ? "OK" : "Service Unavailable";
    if (method != "GET" && method != "HEAD") {
      status = 405;
      reason = "Method Not Allowed";
      body = "";
    }
    const std::string reply = absl::StrCat(
        "HTTP/1.1 ", status, " ", reason, "\r\nContent-Type: ", content_type,
        "\r\nContent-Length: ", body.size(),
        status == 405 ? "\r\nAllow: GET, HEAD" : "",
        "\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        method == "HEAD" ? "" : body);
    mg_write(connection, reply.data(), reply.size());
    return status;
  }

  static int HandleMetrics(mg_connection* connection, void* self) {
    return Reply(connection, 200, "text/plain; version=0.0.4; charset=utf-8",
                 static_cast<CivetMetricsServer*>(self)->registry_->Expose());
  }

  static int HandleLive(mg_connection* connection, void* /*self*/) {
    return Reply(connection, 200, "text/plain; charset=utf-8", "ok\n");
  }

  static int HandleReady(mg_connection* connection, void* self) {
    const Readiness readiness =
        static_cast<CivetMetricsServer*>(self)->readiness_();
    return Reply(connection, readiness.ready ? 200 : 503, "application/json",
                 readiness.body);
  }

  Registry* const registry_;
  const std::function<Readiness()> readiness_;
  mg_context* context_ = nullptr;
  std::string host_;
  int port_ = 0;
  Mutex mutex_;
  std::string last_message_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& host, int port, Registry* registry,
    std::function<Readiness()> readiness) {
  auto server =
      std::make_unique<CivetMetricsServer>(registry, std::move(readiness));
  const absl::Status status = server->Listen(host, port);
  if (!status.ok()) return status;
  return server;
}

}  // namespace switchyard::metrics
