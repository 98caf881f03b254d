#include "router/front/front_door.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/log.h"
#include "router/front/traced_writer.h"
#include "router/openai/errors.h"

namespace switchyard::router {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;

// Paths of APIs that clients know from elsewhere and that a model of text does
// not have.
constexpr const char* kNotServed[] = {
    "/v1/embeddings", "/v1/rerank",
    "/rerank",        "/v1/score",
    "/score",         "/v1/classify",
    "/classify",      "/v1/moderations",
    "/v1/audio/",     "/v1/images/",
    "/v1/videos",     "/v1/files",
    "/v1/batches",    "/v1/fine_tuning/",
    "/v1/assistants", "/v1/threads",
    "/v1/realtime",   "/v1/vector_stores",
    "/encode",        "/concate_and_append_request"};

absl::string_view MethodName(const std::string& method) {
  for (const char* known : {"GET", "POST", "DELETE", "HEAD", "OPTIONS"}) {
    if (method == known) return known;
  }
  return "other";
}

// Adds x-request-id to every answer and counts it.
class TrackedWriter final : public ResponseWriter {
 public:
  TrackedWriter(std::shared_ptr<ResponseWriter> writer, std::string request_id,
                std::function<void(int status)> on_status)
      : writer_(std::move(writer)),
        request_id_(std::move(request_id)),
        on_status_(std::move(on_status)) {}

  void Send(HttpResponse response) override {
    on_status_(response.status);
    AddId(&response);
    writer_->Send(std::move(response));
  }
  void StartStream(const HttpResponse& head) override {
    on_status_(head.status);
    HttpResponse tracked = head;
    AddId(&tracked);
    writer_->StartStream(tracked);
  }
  bool Write(std::string data) override {
    return writer_->Write(std::move(data));
  }
  void Finish() override { writer_->Finish(); }
  void Post(std::function<void()> function) override {
    writer_->Post(std::move(function));
  }
  void OnGone(std::function<void()> function) override {
    writer_->OnGone(std::move(function));
  }

 private:
  // Anthropic's clients read it without the x-.
  void AddId(HttpResponse* response) const {
    response->headers.emplace_back("x-request-id", request_id_);
    response->headers.emplace_back("request-id", request_id_);
  }

  const std::shared_ptr<ResponseWriter> writer_;
  const std::string request_id_;
  const std::function<void(int)> on_status_;
};

std::string NotFoundMessage(const std::string& path) {
  const bool known = absl::c_any_of(kNotServed, [&](const char* prefix) {
    return absl::StartsWith(path, prefix);
  });
  const std::string shown = path.substr(0, 256);
  if (!known) return absl::StrCat("no such path: ", shown);
  return absl::StrCat(
      shown,
      " is not served: this server generates text. Served are "
      "/v1/chat/completions, /v1/completions, /v1/responses, /v1/messages, "
      "/generate, /tokenize, /detokenize and /v1/models");
}

ApiError MethodNotAllowed(const std::string& method, const std::string& path,
                          absl::string_view allowed) {
  return HttpError(405,
                   absl::StrCat(method.substr(0, 32), " is not allowed for ",
                                path.substr(0, 256), "; allowed: ", allowed));
}

// Asked for every few seconds by machines and by the page: their spans would be
// most of a trace store, and say nothing.
bool IsPolled(absl::string_view pattern) {
  static constexpr absl::string_view kPolled[] = {
      "/",       "/livez",   "/liveness", "/readyz",   "/readiness",
      "/health", "/metrics", "/topology", "/v1/loads", "/get_load"};
  return absl::c_linear_search(kPolled, pattern);
}

// What went wrong behind us is told at once; 503 says that somebody comes
// later, to everybody who asks meanwhile.
void LogAnswer(const std::string& request_id, absl::string_view method,
               absl::string_view handler, int status, absl::Duration took) {
  Log(status >= 500 && status != 503 ? LogLevel::kWarning : LogLevel::kDebug,
      absl::StrCat("request ", request_id, ": ", method, " ", handler,
                   " answered with ", status, " after ",
                   absl::FormatDuration(took)));
}

}  // namespace

void FrontDoor::Handle(HttpRequest request,
                       std::shared_ptr<ResponseWriter> writer) {
  const std::string* given = request.FindHeader("x-request-id");
  const bool usable =
      given != nullptr && !given->empty() &&
      given->size() <= kMaxRequestIdBytes &&
      std::all_of(given->begin(), given->end(),
                  [](unsigned char c) { return absl::ascii_isprint(c); });
  const std::string request_id =
      usable
          ? *given
          : absl::StrCat("req-", absl::Hex(options_.random(), absl::kZeroPad16),
                         absl::Hex(options_.random() >> 32, absl::kZeroPad8));
  if (request.path.size() > 1) {
    request.path = std::string(absl::StripSuffix(request.path, "/"));
  }
  Routes::Match match = routes_.Find(request.method, request.path);
  auto on_status = [metrics = options_.metrics, timers = options_.timers,
                    handler = match.pattern.empty() ? absl::string_view("none")
                                                    : match.pattern,
                    method = MethodName(request.method),
                    arrival = options_.timers->Now(), request_id,
                    polled = IsPolled(match.pattern)](int status) {
    const absl::Duration took = timers->Now() - arrival;
    metrics->OnHttpResponse(handler, method, status, took);
    if (!polled) LogAnswer(request_id, method, handler, status, took);
  };
  // For whatever comes after this.
  for (auto& [name, value] : request.headers) {
    if (name == "x-request-id") value = request_id;
  }
  if (given == nullptr) {
    request.headers.emplace_back("x-request-id", request_id);
  }
  if (options_.spans != nullptr && !match.pattern.empty() &&
      !IsPolled(match.pattern)) {
    tracing::Span span = BeginSpan(request, match.pattern, absl::Now());
    if (span.context.sampled) {
      span.attributes.emplace_back("switchyard.request_id", request_id);
      request.traceparent = tracing::FormatTraceparent(span.context);
      writer = TracedWriter(std::move(writer), options_.spans, std::move(span));
    }
  }
  const auto tracked = std::make_shared<TrackedWriter>(
      std::move(writer), request_id, std::move(on_status));
  if (LetIn(&request, tracked)) {
    Dispatch(std::move(request), std::move(match), tracked);
  }
}

bool FrontDoor::LetIn(HttpRequest* request,
                      const std::shared_ptr<ResponseWriter>& writer) {
  if (options_.access == nullptr) return true;
  const AccessGuard::Decision decision =
      options_.access->Judge(request->method, request->path,
                             KeyOf(request->FindHeader("authorization"),
                                   request->FindHeader("x-api-key")));
  request->client = decision.client;
  const auto refuse = [&](int status) {
    ApiError error = HttpError(status, decision.message);
    if (decision.retry_after > absl::ZeroDuration()) {
      error.retry_after_seconds = static_cast<int>(absl::ToInt64Seconds(
          absl::Ceil(decision.retry_after, absl::Seconds(1))));
    }
    HttpResponse response = Refusal(request->path, error);
    if (status == 401) {
      response.headers.emplace_back("WWW-Authenticate", "Bearer");
    }
    writer->Send(std::move(response));
    return false;
  };
  switch (decision.verdict) {
    case AccessGuard::Verdict::kWelcome:
      return true;
    case AccessGuard::Verdict::kUnauthorized:
      return refuse(401);
    case AccessGuard::Verdict::kForbidden:
      return refuse(403);
    case AccessGuard::Verdict::kTooMany:
      return refuse(429);
  }
  return false;
}

void FrontDoor::Dispatch(HttpRequest request, Routes::Match match,
                         const std::shared_ptr<ResponseWriter>& writer) {
  const bool known = !match.pattern.empty();
  if (request.method == "OPTIONS" && (known || request.path == "*")) {
    HttpResponse response;
    response.status = 204;
    response.headers.emplace_back(
        "Allow", known ? match.allowed : "GET, HEAD, POST, DELETE, OPTIONS");
    return writer->Send(std::move(response));
  }
  if (!known) {
    return writer->Send(
        Refusal(request.path, HttpError(404, NotFoundMessage(request.path))));
  }
  if (match.handler == nullptr) {
    HttpResponse response =
        Refusal(request.path,
                MethodNotAllowed(request.method, request.path, match.allowed));
    response.headers.emplace_back("Allow", match.allowed);
    return writer->Send(std::move(response));
  }
  (*match.handler)({std::move(request), std::move(match.variables)}, writer);
}

}  // namespace switchyard::router
