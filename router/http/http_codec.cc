#include "router/http/http_codec.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "boost/beast/http/status.hpp"

namespace switchyard::router {
namespace {

namespace http = boost::beast::http;

std::string HeaderSafe(const std::string& text) {
  std::string safe = text;
  for (char& c : safe) {
    if (c == '\r' || c == '\n' || c == '\0') c = ' ';
  }
  return safe;
}

}  // namespace

std::string SerializeHead(const HttpResponse& response, BodyFraming framing,
                          bool keep_alive) {
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
    if (framing == BodyFraming::kLength) {
      absl::StrAppend(&head, "Content-Length: ", response.body.size(), "\r\n");
    }
  }
  if (framing == BodyFraming::kChunked) {
    absl::StrAppend(&head, "Transfer-Encoding: chunked\r\n");
  }
  if (!keep_alive) absl::StrAppend(&head, "Connection: close\r\n");
  for (const auto& [name, value] : response.headers) {
    absl::StrAppend(&head, HeaderSafe(name), ": ", HeaderSafe(value), "\r\n");
  }
  return head + "\r\n";
}

HttpRequest ToHttpRequest(http::request<http::string_body> message) {
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
    request.headers.emplace_back(
        absl::AsciiStrToLower(std::string(field.name_string())),
        std::string(field.value()));
  }
  request.body = std::move(message.body());
  return request;
}

}  // namespace switchyard::router
