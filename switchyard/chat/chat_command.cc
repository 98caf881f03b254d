#include "switchyard/chat/chat_command.h"

#include <array>
#include <chrono>
#include <istream>
#include <ostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "boost/asio/connect.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/beast/core.hpp"
#include "boost/beast/http.hpp"
#include "switchyard/chat/sse_reader.h"
#include "switchyard/output_error.h"

namespace switchyard {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using ErrorCode = boost::system::error_code;

// An answer may wait in the server's queue for long, but a server that is alive
// sends a comment every 15 s.
constexpr std::chrono::seconds kSilence(120);

absl::Status NetworkError(const ChatOptions& options, const char* doing,
                          const ErrorCode& error) {
  return absl::UnavailableError(absl::StrCat(
      doing, " http://", options.host, ":", options.port, ": ", error.message(),
      "; is `switchyard serve` or a router running there?"));
}

// One POST whose answer is read piece by piece.
class StreamedPost {
 public:
  StreamedPost() : stream_(context_) { parser_.body_limit(boost::none); }

  absl::Status Start(const ChatOptions& options, const std::string& body) {
    ErrorCode error;
    asio::ip::tcp::resolver resolver(context_);
    const auto endpoints =
        resolver.resolve(options.host, absl::StrCat(options.port), error);
    if (error) return NetworkError(options, "resolving", error);
    stream_.expires_after(std::chrono::seconds(10));
    Await(
        [&](auto done) {
          stream_.async_connect(endpoints,
                                [done](ErrorCode e, auto) { done(e); });
        },
        &error);
    if (error) return NetworkError(options, "connecting to", error);

    http::request<http::string_body> request(http::verb::post,
                                             "/v1/chat/completions", 11);
    request.set(http::field::host, options.host);
    request.set(http::field::content_type, "application/json");
    request.body() = body;
    request.prepare_payload();
    stream_.expires_after(kSilence);
    Await(
        [&](auto done) {
          http::async_write(stream_, request,
                            [done](ErrorCode e, size_t) { done(e); });
        },
        &error);
    if (!error) {
      Await(
          [&](auto done) {
            http::async_read_header(stream_, buffer_, parser_,
                                    [done](ErrorCode e, size_t) { done(e); });
          },
          &error);
    }
    if (error) return NetworkError(options, "asking", error);
    return absl::OkStatus();
  }

  int status() const { return static_cast<int>(parser_.get().result_int()); }

  // The next bytes of the body; "" at its end.
  absl::StatusOr<std::string> Read(const ChatOptions& options) {
    std::array<char, 4096> bytes;
    // A read may have taken in no more than the head of a chunk.
    while (!parser_.is_done()) {
      parser_.get().body().data = bytes.data();
      parser_.get().body().size = bytes.size();
      ErrorCode error;
      stream_.expires_after(kSilence);
      Await(
          [&](auto done) {
            http::async_read_some(stream_, buffer_, parser_,
                                  [done](ErrorCode e, size_t) { done(e); });
          },
          &error);
      if (error == http::error::need_buffer) error = {};
      if (error) return NetworkError(options, "reading from", error);
      const size_t size = bytes.size() - parser_.get().body().size;
      if (size > 0) return std::string(bytes.data(), size);
    }
    return std::string();
  }

 private:
  // Runs one asynchronous operation to its end: only those obey expires_after.
  template <typename Begin>
  void Await(Begin begin, ErrorCode* error) {
    begin([error](ErrorCode e) { *error = e; });
    context_.restart();
    context_.run();
  }

  asio::io_context context_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  http::response_parser<http::buffer_body> parser_;
};

std::string StringField(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>()
                                                     : std::string();
}

// The text of an error body, or the body itself if it is no error object.
std::string ErrorText(const std::string& body) {
  const absl::StatusOr<Json> parsed = ParseJson(body);
  if (parsed.ok() && parsed->is_object() && parsed->contains("error") &&
      (*parsed)["error"].is_object()) {
    return StringField((*parsed)["error"], "message");
  }
  return body;
}

// Prints deltas; keeps the answer's content for the history.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(std::ostream& out) : out_(out) {}

  // False when the stream is complete.
  bool Event(const std::string& data) {
    if (data == "[DONE]") return false;
    const absl::StatusOr<Json> event = ParseJson(data);
    if (!event.ok() || !event->is_object()) return true;
    if (event->contains("error")) {
      out_ << "\n[" << ErrorText(data) << "]";
      failed_ = true;
      return false;
    }
    const auto choices = event->find("choices");
    if (choices == event->end() || !choices->is_array() || choices->empty()) {
      return true;
    }
    const Json& choice = choices->front();
    if (choice.is_object() && choice.contains("delta") &&
        choice["delta"].is_object()) {
      Delta(choice["delta"]);
    }
    return true;
  }

  const std::string& content() const { return content_; }
  bool failed() const { return failed_; }

 private:
  void Delta(const Json& delta) {
    const std::string reasoning = StringField(delta, "reasoning_content");
    const std::string content = StringField(delta, "content");
    if (!reasoning.empty() && !in_reasoning_) out_ << "(thinking) ";
    if (!content.empty() && in_reasoning_) out_ << "\n";
    if (!reasoning.empty()) in_reasoning_ = true;
    if (!content.empty()) in_reasoning_ = false;
    out_ << reasoning << content << std::flush;
    content_ += content;
  }

  std::ostream& out_;
  std::string content_;
  bool in_reasoning_ = false;
  bool failed_ = false;
};

// Asks once. The answer's content, or "" when it was refused (which was
// printed).
absl::StatusOr<std::string> AskOnce(const ChatOptions& options,
                                    const Json& messages, std::ostream& out) {
  Json body = Json::object();
  body["model"] = "default";
  body["messages"] = messages;
  body["stream"] = true;
  if (options.enable_thinking) {
    body["chat_template_kwargs"] = Json::object({{"enable_thinking", true}});
  }
  StreamedPost post;
  SY_RETURN_IF_ERROR(post.Start(options, DumpJson(body)));
  SseReader reader;
  AnswerPrinter printer(out);
  std::string refused;
  bool more = true;
  while (more) {
    SY_ASSIGN_OR_RETURN(const std::string bytes, post.Read(options));
    if (bytes.empty()) break;
    if (post.status() != 200) {
      refused += bytes;
      continue;
    }
    // Who reads no more ends the request too.
    SY_RETURN_IF_ERROR(WriteOutput(out, [&](std::ostream&) {
      for (const std::string& event : reader.Add(bytes)) {
        more = more && printer.Event(event);
      }
    }));
  }
  SY_RETURN_IF_ERROR(WriteOutput(out, [&](std::ostream& stream) {
    if (post.status() != 200) {
      stream << "[" << post.status() << ": " << ErrorText(refused) << "]";
    }
    stream << "\n" << std::flush;
  }));
  return post.status() == 200 && !printer.failed() ? printer.content()
                                                   : std::string();
}

Json Message(const char* role, const std::string& content) {
  Json message = Json::object();
  message["role"] = role;
  message["content"] = content;
  return message;
}

}  // namespace

absl::Status RunChat(const ChatOptions& options, std::istream& in,
                     std::ostream& out) {
  const Json beginning =
      options.system_prompt.empty()
          ? Json::array()
          : Json::array({Message("system", options.system_prompt)});
  Json messages = beginning;
  if (options.interactive) {
    out << "Talking to http://" << options.host << ":" << options.port
        << ". /reset forgets, /exit ends.\n";
  }
  std::string line;
  while (true) {
    if (options.interactive) out << "> " << std::flush;
    if (!std::getline(in, line) || line == "/exit") break;
    if (line.empty()) continue;
    if (line == "/reset") {
      messages = beginning;
      continue;
    }
    messages.push_back(Message("user", line));
    SY_ASSIGN_OR_RETURN(const std::string answer,
                        AskOnce(options, messages, out));
    if (answer.empty()) {
      messages.erase(messages.size() - 1);
    } else {
      messages.push_back(Message("assistant", answer));
    }
  }
  if (options.interactive) out << "\n";
  return absl::OkStatus();
}

}  // namespace switchyard
