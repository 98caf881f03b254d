// One HTTP/1.1 request over a socket of its own.

#ifndef SWITCHYARD_TESTS_TESTING_HTTP_CLIENT_H_
#define SWITCHYARD_TESTS_TESTING_HTTP_CLIENT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::testing {

struct HttpReply {
  int status = 0;
  std::string headers;  // as they came, the status line first
  std::string body;     // as it came: chunks are not put together
};

// Sends METHOD PATH to 127.0.0.1:`port` with "Connection: close" and reads to
// the end. UNAVAILABLE when nobody listens, DEADLINE_EXCEEDED after a minute
// without a byte, INTERNAL when the reply isn't HTTP.
absl::StatusOr<HttpReply> HttpCall(int port, absl::string_view method,
                                   absl::string_view path,
                                   absl::string_view body = "");

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_HTTP_CLIENT_H_
