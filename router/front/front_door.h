// Where every request comes in: gives it an id, asks whether it may, finds its
// handler, and counts its answer.
//
// Above: server.h hands it to the HTTP server. Below: the handlers of the APIs,
// which add themselves to routes(). Not here: what a request means.

#ifndef SWITCHYARD_ROUTER_FRONT_FRONT_DOOR_H_
#define SWITCHYARD_ROUTER_FRONT_FRONT_DOOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "router/access/access_guard.h"
#include "router/http/http_message.h"
#include "router/http/routes.h"
#include "router/http/timer_queue.h"
#include "router/openai/errors.h"
#include "router/openai/router_metrics.h"
#include "tracing/span/span.h"

namespace switchyard::router {

// Thread-safe once its routes are complete. Outlives the HTTP server.
class FrontDoor {
 public:
  struct Options {
    RouterMetrics* metrics = nullptr;  // not owned, like the next
    TimerQueue* timers = nullptr;
    AccessGuard* access = nullptr;       // null: everybody is welcome
    std::function<uint64_t()> random;    // thread-safe; for ids
    tracing::SpanSink* spans = nullptr;  // null: no traces
    // A refusal as clients of this path's API expect it; null: as OpenAI's do.
    std::function<HttpResponse(absl::string_view path, const ApiError& error)>
        error_response = nullptr;
  };
  explicit FrontDoor(Options options) : options_(std::move(options)) {}

  // Before the server starts.
  Routes* routes() { return &routes_; }

  // The HTTP server's handler. Every request that a handler gets has an
  // x-request-id, the client's or a new one, and so has its answer.
  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer);

 private:
  // False: the request is answered already, with a refusal.
  bool LetIn(HttpRequest* request,
             const std::shared_ptr<ResponseWriter>& writer);
  void Dispatch(HttpRequest request, Routes::Match match,
                const std::shared_ptr<ResponseWriter>& writer);
  HttpResponse Refusal(const std::string& path, const ApiError& error) const {
    return options_.error_response ? options_.error_response(path, error)
                                   : ErrorResponse(error);
  }

  const Options options_;
  Routes routes_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_FRONT_FRONT_DOOR_H_
