// Which handler answers which method and path.

#ifndef SWITCHYARD_ROUTER_HTTP_ROUTES_H_
#define SWITCHYARD_ROUTER_HTTP_ROUTES_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "router/http/http_message.h"

namespace switchyard::router {

// A request with what its path's variables stand for, percent-decoded, in
// their order.
struct RoutedRequest {
  HttpRequest http;
  std::vector<std::string> variables;
};

using RouteHandler = std::function<void(
    RoutedRequest request, std::shared_ptr<ResponseWriter> writer)>;

// Filled before the server starts, then only read: thread-safe.
class Routes {
 public:
  // In `pattern`, {name} stands for one segment of the path, and {name...} at
  // its end for all that follow (at least one). Of several patterns that match,
  // the one added first counts. A GET handler serves HEAD too.
  void Add(absl::string_view method, absl::string_view pattern,
           RouteHandler handler);

  struct Match {
    // The pattern as it was added; "" if none matches the path.
    absl::string_view pattern;
    // Null if the path is known and the method is not.
    const RouteHandler* handler = nullptr;
    std::vector<std::string> variables;
    std::string allowed;  // methods of this path: "GET, HEAD, OPTIONS"
  };
  // The result points into this.
  Match Find(absl::string_view method, absl::string_view path) const;

 private:
  struct Route {
    std::string method;
    std::string pattern;
    std::vector<std::string> segments;
    RouteHandler handler;
  };
  std::vector<Route> routes_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_HTTP_ROUTES_H_
