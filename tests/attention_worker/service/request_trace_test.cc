#include "attention_worker/service/request_trace.h"

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

class Recorder final : public tracing::SpanSink {
 public:
  void Add(tracing::Span span) override { spans.push_back(std::move(span)); }
  std::vector<tracing::Span> spans;
};

const tracing::TraceContext kParent = {1, 2, 3, true};
const absl::Time kStart = absl::UnixEpoch();

GenerationUsage Took(absl::Duration queue, absl::Duration prefill) {
  GenerationUsage usage;
  usage.queue_time = queue;
  usage.prefill_time = prefill;
  return usage;
}

ExpertTraffic Calls(int64_t calls) {
  return {.calls = calls,
          .rows = 10 * calls,
          .queue = absl::Milliseconds(calls),
          .compute = absl::Milliseconds(2 * calls),
          .wire = absl::Milliseconds(4 * calls)};
}

TEST(RequestTraceTest, EachExpertWorkersShareIsASpan) {
  Recorder sink;
  ExpertTrafficMeter experts;
  RequestTrace trace(&sink, kParent, "r", kStart, &experts);
  // While it waits, others are served.
  experts.Add("a:1", Calls(100));
  experts.Add("b:1", Calls(100));
  trace.Begin(kStart + absl::Seconds(1));
  experts.Add("a:1", Calls(3));
  experts.Add("c:1", Calls(5));
  experts.Add("a:1", Calls(4));
  trace.Done(absl::OkStatus(), Took(absl::Seconds(1), absl::Seconds(2)),
             kStart + absl::Seconds(3));

  std::map<std::string, const tracing::Span*> by_worker;
  const tracing::Span& whole = sink.spans.back();
  EXPECT_EQ(whole.parent_span, kParent.span);
  for (const tracing::Span& span : sink.spans) {
    if (span.kind != tracing::SpanKind::kClient) continue;
    EXPECT_EQ(span.parent_span, whole.context.span);
    EXPECT_EQ(span.context.trace_low, kParent.trace_low);
    EXPECT_EQ(span.start, kStart + absl::Seconds(1));
    EXPECT_EQ(span.end, kStart + absl::Seconds(3));
    for (const auto& [name, value] : span.attributes) {
      if (name == "peer.service") {
        by_worker[std::get<std::string>(value)] = &span;
      }
    }
  }
  // Nothing came to b.
  ASSERT_EQ(by_worker.size(), 2u);
  ASSERT_EQ(by_worker.count("a:1"), 1u);
  ASSERT_EQ(by_worker.count("c:1"), 1u);
  std::map<std::string, double> sums;
  for (const auto& [name, value] : by_worker["a:1"]->attributes) {
    if (const auto* number = std::get_if<int64_t>(&value)) {
      sums[name] = static_cast<double>(*number);
    } else if (const auto* seconds = std::get_if<double>(&value)) {
      sums[name] = *seconds;
    }
  }
  EXPECT_EQ(sums["switchyard.expert_calls"], 7);
  EXPECT_EQ(sums["switchyard.expert_rows"], 70);
  EXPECT_NEAR(sums["switchyard.queue_seconds"], 0.007, 1e-9);
  EXPECT_NEAR(sums["switchyard.compute_seconds"], 0.014, 1e-9);
  EXPECT_NEAR(sums["switchyard.wire_seconds"], 0.028, 1e-9);
}

TEST(RequestTraceTest, WhoNeverBeganHadNoExperts) {
  Recorder sink;
  ExpertTrafficMeter experts;
  RequestTrace trace(&sink, kParent, "r", kStart, &experts);
  experts.Add("a:1", Calls(1));
  trace.Done(absl::CancelledError("gone"), Took(absl::Seconds(1), {}),
             kStart + absl::Seconds(1));
  ASSERT_EQ(sink.spans.size(), 2u);
  EXPECT_EQ(sink.spans[0].name, "queue");
  EXPECT_THAT(sink.spans[1].error, ::testing::HasSubstr("gone"));
}

}  // namespace
}  // namespace switchyard::attention_worker
