#include "router/page/operators_page.h"

#include <string>

namespace switchyard::router {

// Made from index.html by the build.
extern const char kIndexHtml[];
extern const size_t kIndexHtmlBytes;

HttpResponse OperatorsPage() {
  HttpResponse response;
  response.content_type = "text/html; charset=utf-8";
  response.headers = {
      {"Content-Security-Policy",
       "default-src 'none'; script-src 'unsafe-inline'; style-src "
       "'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
       "form-action 'none'; frame-ancestors 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"Referrer-Policy", "no-referrer"},
      {"Cache-Control", "no-cache"},
  };
  response.body = std::string(kIndexHtml, kIndexHtmlBytes);
  return response;
}

}  // namespace switchyard::router
