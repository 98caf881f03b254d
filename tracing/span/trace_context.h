// Which trace something belongs to, as it travels between processes.
//
// Source: W3C Trace Context, the header `traceparent`, version 00.

#ifndef SWITCHYARD_TRACING_SPAN_TRACE_CONTEXT_H_
#define SWITCHYARD_TRACING_SPAN_TRACE_CONTEXT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace switchyard::tracing {

// A place in a trace: one span of it.
struct TraceContext {
  uint64_t trace_high = 0;  // the trace's 16 bytes, big-endian
  uint64_t trace_low = 0;
  uint64_t span = 0;
  bool sampled = false;  // its spans are recorded

  // All zeros are nobody's.
  bool valid() const { return (trace_high | trace_low) != 0 && span != 0; }
};

// Absent: not a traceparent. A later version's is read as far as it is known.
absl::optional<TraceContext> ParseTraceparent(absl::string_view header);
std::string FormatTraceparent(const TraceContext& context);

// A span's id within the trace of `parent`; `random` gives 64 random bits.
TraceContext ChildOf(const TraceContext& parent,
                     const std::function<uint64_t()>& random);
TraceContext NewTrace(bool sampled, const std::function<uint64_t()>& random);

// For ids, which no secret depends on. Thread-safe.
uint64_t RandomBits();

}  // namespace switchyard::tracing

#endif  // SWITCHYARD_TRACING_SPAN_TRACE_CONTEXT_H_
