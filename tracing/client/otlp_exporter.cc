#include "tracing/client/otlp_exporter.h"

#include <algorithm>
#include <deque>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/version.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "proto/otlp_trace.grpc.pb.h"
#include "rpc/address.h"

namespace switchyard::tracing {
namespace {

namespace otlp = ::opentelemetry::proto::collector::trace::v1;

std::string BigEndian(uint64_t value) {
  std::string bytes(8, '\0');
  for (int i = 7; i >= 0; --i, value >>= 8) {
    bytes[i] = static_cast<char>(value & 0xff);
  }
  return bytes;
}

otlp::Span::SpanKind Kind(SpanKind kind) {
  switch (kind) {
    case SpanKind::kInternal:
      return otlp::Span::SPAN_KIND_INTERNAL;
    case SpanKind::kServer:
      return otlp::Span::SPAN_KIND_SERVER;
    case SpanKind::kClient:
      return otlp::Span::SPAN_KIND_CLIENT;
  }
  return otlp::Span::SPAN_KIND_UNSPECIFIED;
}

void SetValue(const std::variant<std::string, int64_t, double, bool>& from,
              otlp::AnyValue* to) {
  if (const auto* text = std::get_if<std::string>(&from)) {
    to->set_string_value(*text);
  } else if (const auto* number = std::get_if<int64_t>(&from)) {
    to->set_int_value(*number);
  } else if (const auto* real = std::get_if<double>(&from)) {
    to->set_double_value(*real);
  } else {
    to->set_bool_value(std::get<bool>(from));
  }
}

void AddAttribute(const std::string& key, const std::string& value,
                  otlp::Resource* resource) {
  otlp::KeyValue* const attribute = resource->add_attributes();
  attribute->set_key(key);
  attribute->mutable_value()->set_string_value(value);
}

void Encode(const Span& span, otlp::Span* to) {
  to->set_trace_id(BigEndian(span.context.trace_high) +
                   BigEndian(span.context.trace_low));
  to->set_span_id(BigEndian(span.context.span));
  if (span.parent_span != 0)
    to->set_parent_span_id(BigEndian(span.parent_span));
  to->set_name(span.name);
  to->set_kind(Kind(span.kind));
  to->set_start_time_unix_nano(
      static_cast<uint64_t>(absl::ToUnixNanos(span.start)));
  to->set_end_time_unix_nano(
      static_cast<uint64_t>(absl::ToUnixNanos(std::max(span.start, span.end))));
  for (const auto& [key, value] : span.attributes) {
    otlp::KeyValue* const attribute = to->add_attributes();
    attribute->set_key(key);
    SetValue(value, attribute->mutable_value());
  }
  if (!span.error.empty()) {
    to->mutable_status()->set_code(otlp::Span::Status::STATUS_CODE_ERROR);
    to->mutable_status()->set_message(span.error);
  }
}

class OtlpExporter final : public SpanSink {
 public:
  explicit OtlpExporter(OtlpExporterOptions options)
      : options_(std::move(options)),
        stub_(otlp::TraceService::NewStub(grpc::CreateChannel(
            options_.endpoint, grpc::InsecureChannelCredentials()))) {
    const auto counter = [&](const char* result) {
      return options_.registry->AddCounter(
          "switchyard_trace_spans_total",
          "Spans for the collector of traces, by what became of them.",
          {{"result", result}});
    };
    sent_ = counter("sent");
    failed_ = counter("failed");
    dropped_ = counter("dropped");
    thread_ = StartThread("traces", [this] { Loop(); });
  }
  ~OtlpExporter() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }

  void Add(Span span) override {
    MutexLock lock(&mutex_);
    if (queue_.size() >= options_.max_queued_spans) {
      dropped_->Increment();
      return;
    }
    queue_.push_back(std::move(span));
    if (queue_.size() >= options_.max_batch_spans) changed_.SignalAll();
  }

 private:
  void Loop() {
    const auto deadline_of_all = [&] { return absl::Now() + options_.timeout; };
    absl::Time last_deadline = absl::InfiniteFuture();
    while (true) {
      std::vector<Span> batch;
      bool stopping = false;
      {
        MutexLock lock(&mutex_);
        const absl::Time next = absl::Now() + options_.interval;
        while (!stopping_ && queue_.size() < options_.max_batch_spans &&
               changed_.WaitUntil(&mutex_, next)) {
        }
        stopping = stopping_;
        const size_t count = std::min(queue_.size(), options_.max_batch_spans);
        std::move(queue_.begin(), queue_.begin() + static_cast<int64_t>(count),
                  std::back_inserter(batch));
        queue_.erase(queue_.begin(),
                     queue_.begin() + static_cast<int64_t>(count));
      }
      if (stopping && last_deadline == absl::InfiniteFuture()) {
        last_deadline = deadline_of_all();
      }
      if (batch.empty() && stopping) return;
      if (!batch.empty()) {
        Send(batch, std::min(deadline_of_all(), last_deadline));
      }
    }
  }

  void Send(const std::vector<Span>& batch, absl::Time deadline) {
    otlp::ExportTraceServiceRequest request;
    otlp::ResourceSpans* const spans = request.add_resource_spans();
    AddAttribute("service.name", options_.service_name,
                 spans->mutable_resource());
    AddAttribute("service.version", std::string(kVersion),
                 spans->mutable_resource());
    AddAttribute("service.instance.id", options_.instance_id,
                 spans->mutable_resource());
    otlp::ScopeSpans* const scope = spans->add_scope_spans();
    scope->mutable_scope()->set_name("switchyard");
    for (const Span& span : batch) Encode(span, scope->add_spans());
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    otlp::ExportTraceServiceResponse response;
    const grpc::Status status = stub_->Export(&context, request, &response);
    const auto count = static_cast<double>(batch.size());
    if (status.ok()) {
      sent_->Increment(count);
      failing_ = false;
      return;
    }
    failed_->Increment(count);
    // Once, until it works again.
    if (!std::exchange(failing_, true)) {
      LogWarning(absl::StrCat("traces do not reach ", options_.endpoint, ": ",
                              status.error_message()));
    }
  }

  const OtlpExporterOptions options_;
  const std::unique_ptr<otlp::TraceService::Stub> stub_;
  metrics::Counter* sent_ = nullptr;
  metrics::Counter* failed_ = nullptr;
  metrics::Counter* dropped_ = nullptr;
  bool failing_ = false;  // the thread's

  Mutex mutex_;
  CondVar changed_;
  std::deque<Span> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // last: uses everything above
};

}  // namespace

absl::StatusOr<std::unique_ptr<SpanSink>> NewOtlpExporter(
    OtlpExporterOptions options) {
  absl::string_view address = options.endpoint;
  absl::ConsumePrefix(&address, "http://");
  absl::ConsumeSuffix(&address, "/");
  options.endpoint = std::string(address);
  SY_RETURN_IF_ERROR(rpc::CheckAddress(options.endpoint));
  return std::make_unique<OtlpExporter>(std::move(options));
}

}  // namespace switchyard::tracing
