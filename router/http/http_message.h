// HTTP as the router's handlers see it: one request, one way to answer it.
//
// Above: openai/ gives the bytes their meaning. Below: the server's files,
// which alone see Boost. Not here: JSON, tokens, workers.

#ifndef SWITCHYARD_ROUTER_HTTP_HTTP_MESSAGE_H_
#define SWITCHYARD_ROUTER_HTTP_HTTP_MESSAGE_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace switchyard::router {

struct HttpRequest {
  std::string method;  // "GET", "POST", ... as sent
  std::string path;    // of the target, without the query; not percent-decoded
  std::string query;   // behind '?', or ""
  std::vector<std::pair<std::string, std::string>> headers;  // lower-case names
  std::string body;
  std::string peer;  // "127.0.0.1:50312", for logs
  // Whose API key came with it, as access/ found; "": nobody's.
  std::string client;
  // For calls that serve it, if it is traced: a traceparent header's value.
  std::string traceparent;

  // The first header of that lower-case name; null if there is none.
  const std::string* FindHeader(const char* name) const {
    for (const auto& [key, value] : headers) {
      if (key == name) return &value;
    }
    return nullptr;
  }
};

// Content-Length, Connection and Transfer-Encoding are the server's business.
// Line breaks in names or values are replaced by spaces.
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;  // of whole responses only
};

// Where one request's answer goes: either Send() once, or StartStream(), any
// number of Write() and Finish(). Thread-safe; nothing blocks. Dropping the
// last reference before the answer is complete cuts the connection. Must not be
// used after the server's destructor has returned.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  virtual void Send(HttpResponse response) = 0;

  // Sends the head; the body follows in pieces (chunked, or until the end of
  // the connection for HTTP/1.0).
  virtual void StartStream(const HttpResponse& head) = 0;
  // False: the client is gone, or reads so slowly that its send buffer is full,
  // and the connection is cut. Empty data is ignored.
  virtual bool Write(std::string data) = 0;
  virtual void Finish() = 0;

  // Runs `function` soon on the connection's strand: functions of one
  // connection run one after the other, in the order of their posting, on an
  // I/O thread, so they must not block. Runs also when the client is gone
  // already.
  virtual void Post(std::function<void()> function) = 0;

  // Runs `function` on the strand, once, if the client goes away (or is cut
  // off) before the answer is complete. It is forgotten with the end of the
  // answer.
  virtual void OnGone(std::function<void()> function) = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_HTTP_HTTP_MESSAGE_H_
