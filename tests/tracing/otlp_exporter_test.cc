#include "tracing/client/otlp_exporter.h"

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "gmock/gmock.h"
#include "grpcpp/server_context.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "proto/otlp_trace.grpc.pb.h"
#include "rpc/server.h"
#include "tests/testing/matchers.h"

namespace switchyard::tracing {
namespace {

namespace otlp = ::opentelemetry::proto::collector::trace::v1;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

class Collector final : public otlp::TraceService::Service {
 public:
  grpc::Status Export(grpc::ServerContext* /*context*/,
                      const otlp::ExportTraceServiceRequest* request,
                      otlp::ExportTraceServiceResponse* /*response*/) override {
    MutexLock lock(&mutex_);
    requests_.push_back(*request);
    changed_.SignalAll();
    return grpc::Status::OK;
  }
  // All spans, once there are so many of them.
  std::vector<otlp::Span> WaitForSpans(size_t count) {
    MutexLock lock(&mutex_);
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (Spans().size() < count && changed_.WaitUntil(&mutex_, deadline)) {
    }
    return Spans();
  }
  otlp::ExportTraceServiceRequest first() {
    MutexLock lock(&mutex_);
    return requests_.at(0);
  }

 private:
  std::vector<otlp::Span> Spans() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::vector<otlp::Span> spans;
    for (const auto& request : requests_) {
      for (const auto& span :
           request.resource_spans(0).scope_spans(0).spans()) {
        spans.push_back(span);
      }
    }
    return spans;
  }

  Mutex mutex_;
  CondVar changed_;
  std::vector<otlp::ExportTraceServiceRequest> requests_
      ABSL_GUARDED_BY(mutex_);
};

Span MakeSpan(const std::string& name) {
  return {.context = {0x0102030405060708, 9, 0x1112131415161718, true},
          .parent_span = 5,
          .name = name,
          .kind = SpanKind::kServer,
          .start = absl::FromUnixNanos(1'000'000'007),
          .end = absl::FromUnixNanos(2'000'000'009),
          .attributes = {{"text", std::string("x")},
                         {"number", int64_t{7}},
                         {"real", 0.5},
                         {"yes", true}},
          .error = "gone"};
}

class OtlpExporterTest : public ::testing::Test {
 protected:
  std::unique_ptr<SpanSink> Make(OtlpExporterOptions options) {
    options.registry = registry_.get();
    options.service_name = "switchyard-test";
    options.instance_id = "i-1";
    auto sink = NewOtlpExporter(std::move(options));
    EXPECT_THAT(sink, IsOk());
    return *std::move(sink);
  }
  std::string Metrics() { return registry_->Expose(); }

  const std::unique_ptr<metrics::Registry> registry_ =
      metrics::Registry::Create();
};

TEST_F(OtlpExporterTest, WhatACollectorGets) {
  Collector collector;
  auto server = rpc::Server::Start("127.0.0.1", 0, {&collector});
  ASSERT_THAT(server, IsOk());
  {
    const auto sink =
        Make({.endpoint = absl::StrCat("http://127.0.0.1:", (*server)->port()),
              .interval = absl::Milliseconds(1)});
    sink->Add(MakeSpan("one"));
    sink->Add(MakeSpan("two"));
  }  // sends what is left
  const auto spans = collector.WaitForSpans(2);
  ASSERT_EQ(spans.size(), 2u);
  const otlp::Span& span = spans[0];
  EXPECT_EQ(span.trace_id(),
            std::string("\1\2\3\4\5\6\7\10\0\0\0\0\0\0\0\11", 16));
  EXPECT_EQ(span.span_id(), "\x11\x12\x13\x14\x15\x16\x17\x18");
  EXPECT_EQ(span.parent_span_id(), std::string("\0\0\0\0\0\0\0\5", 8));
  EXPECT_EQ(span.name(), "one");
  EXPECT_EQ(span.kind(), otlp::Span::SPAN_KIND_SERVER);
  EXPECT_EQ(span.start_time_unix_nano(), 1'000'000'007u);
  EXPECT_EQ(span.end_time_unix_nano(), 2'000'000'009u);
  ASSERT_EQ(span.attributes_size(), 4);
  EXPECT_EQ(span.attributes(0).value().string_value(), "x");
  EXPECT_EQ(span.attributes(1).value().int_value(), 7);
  EXPECT_EQ(span.attributes(2).value().double_value(), 0.5);
  EXPECT_TRUE(span.attributes(3).value().bool_value());
  EXPECT_EQ(span.status().code(), otlp::Span::Status::STATUS_CODE_ERROR);
  EXPECT_EQ(span.status().message(), "gone");
  EXPECT_THAT(collector.first().resource_spans(0).resource().ShortDebugString(),
              HasSubstr("switchyard-test"));
  EXPECT_THAT(Metrics(), HasSubstr("spans_total{result=\"sent\"} 2"));
}

TEST_F(OtlpExporterTest, WithoutRoomOrACollectorSpansAreDropped) {
  {
    const auto sink = Make({.endpoint = "127.0.0.1:1",
                            .max_queued_spans = 3,
                            .interval = absl::Hours(1),
                            .timeout = absl::Milliseconds(200)});
    for (int i = 0; i < 5; ++i) sink->Add(MakeSpan("x"));
    EXPECT_THAT(Metrics(), HasSubstr("spans_total{result=\"dropped\"} 2"));
  }
  EXPECT_THAT(Metrics(), HasSubstr("spans_total{result=\"failed\"} 3"));
}

TEST_F(OtlpExporterTest, AnEndpointThatIsNone) {
  for (const char* endpoint : {"", "collector", "http://", "a:b:c:d/x"}) {
    EXPECT_THAT(
        NewOtlpExporter({.endpoint = endpoint, .registry = registry_.get()}),
        StatusIs(absl::StatusCode::kInvalidArgument))
        << endpoint;
  }
}

}  // namespace
}  // namespace switchyard::tracing
