// HTTP/1.1 as bytes and as Beast parses it, to and from http_message.h. Pure
// functions.

#ifndef SWITCHYARD_ROUTER_HTTP_HTTP_CODEC_H_
#define SWITCHYARD_ROUTER_HTTP_HTTP_CODEC_H_

#include <string>

#include "boost/beast/http/message.hpp"
#include "boost/beast/http/string_body.hpp"
#include "router/http/http_message.h"

namespace switchyard::router {

// How a client knows where an answer's body ends.
enum class BodyFraming {
  kLength,      // Content-Length: the body is response.body
  kChunked,     // Transfer-Encoding: chunked
  kUntilClose,  // the connection ends
};

// The status line, Date, the headers and the empty line. With `keep_alive`
// false it says "Connection: close". Line breaks in headers become spaces.
std::string SerializeHead(const HttpResponse& response, BodyFraming framing,
                          bool keep_alive);

// All but the peer. Names of headers are made lower case; of a target in
// absolute form ("http://host/path") the path counts.
HttpRequest ToHttpRequest(
    boost::beast::http::request<boost::beast::http::string_body> message);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_HTTP_HTTP_CODEC_H_
