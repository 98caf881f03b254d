// A span: something that took time, in a trace.

#ifndef SWITCHYARD_TRACING_SPAN_SPAN_H_
#define SWITCHYARD_TRACING_SPAN_SPAN_H_

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "tracing/span/trace_context.h"

namespace switchyard::tracing {

enum class SpanKind { kInternal, kServer, kClient };

struct Span {
  TraceContext context;      // this span's own
  uint64_t parent_span = 0;  // 0: a root
  std::string name;
  SpanKind kind = SpanKind::kInternal;
  absl::Time start;
  absl::Time end;
  // By OpenTelemetry's semantic conventions where there are some.
  std::vector<
      std::pair<std::string, std::variant<std::string, int64_t, double, bool>>>
      attributes;
  std::string error;  // empty: it went well
};

// Where finished spans go. Thread-safe, never blocks: what it has no room for
// is counted and dropped.
class SpanSink {
 public:
  virtual ~SpanSink() = default;
  virtual void Add(Span span) = 0;
};

}  // namespace switchyard::tracing

#endif  // SWITCHYARD_TRACING_SPAN_SPAN_H_
