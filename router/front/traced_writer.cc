#include "router/front/traced_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"

namespace switchyard::router {
namespace {

class Traced final : public ResponseWriter {
 public:
  Traced(std::shared_ptr<ResponseWriter> writer, tracing::SpanSink* sink,
         tracing::Span span)
      : writer_(std::move(writer)), sink_(sink), span_(std::move(span)) {}
  ~Traced() override { End("the answer was not completed"); }

  void Send(HttpResponse response) override {
    SetStatus(response.status);
    writer_->Send(std::move(response));
    End("");
  }
  void StartStream(const HttpResponse& head) override {
    SetStatus(head.status);
    writer_->StartStream(head);
  }
  bool Write(std::string data) override {
    return writer_->Write(std::move(data));
  }
  void Finish() override {
    writer_->Finish();
    End("");
  }
  void Post(std::function<void()> function) override {
    writer_->Post(std::move(function));
  }
  void OnGone(std::function<void()> function) override {
    writer_->OnGone(std::move(function));
  }

 private:
  void SetStatus(int status) {
    MutexLock lock(&mutex_);
    span_.attributes.emplace_back("http.response.status_code", int64_t{status});
    if (status >= 500) span_.error = absl::StrCat("HTTP ", status);
  }
  void End(const char* error) {
    MutexLock lock(&mutex_);
    if (ended_) return;
    ended_ = true;
    if (span_.error.empty()) span_.error = error;
    span_.end = absl::Now();
    sink_->Add(std::move(span_));
  }

  const std::shared_ptr<ResponseWriter> writer_;
  tracing::SpanSink* const sink_;
  Mutex mutex_;
  tracing::Span span_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

tracing::Span BeginSpan(const HttpRequest& request, absl::string_view route,
                        absl::Time now) {
  tracing::Span span;
  absl::optional<tracing::TraceContext> parent;
  if (const std::string* header = request.FindHeader("traceparent")) {
    parent = tracing::ParseTraceparent(*header);
  }
  if (parent) {
    span.context = tracing::ChildOf(*parent, tracing::RandomBits);
    span.parent_span = parent->span;
  } else {
    span.context = tracing::NewTrace(/*sampled=*/true, tracing::RandomBits);
  }
  span.name = absl::StrCat(request.method.substr(0, 16), " ", route);
  span.kind = tracing::SpanKind::kServer;
  span.start = now;
  span.attributes = {{"http.request.method", request.method.substr(0, 16)},
                     {"http.route", std::string(route)}};
  return span;
}

std::shared_ptr<ResponseWriter> TracedWriter(
    std::shared_ptr<ResponseWriter> writer, tracing::SpanSink* sink,
    tracing::Span span) {
  return std::make_shared<Traced>(std::move(writer), sink, std::move(span));
}

}  // namespace switchyard::router
