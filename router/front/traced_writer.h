// The span of one HTTP request: from its arrival to the last byte of its
// answer.

#ifndef SWITCHYARD_ROUTER_FRONT_TRACED_WRITER_H_
#define SWITCHYARD_ROUTER_FRONT_TRACED_WRITER_H_

#include <memory>

#include "router/http/http_message.h"
#include "tracing/span/span.h"

namespace switchyard::router {

// The span of `request`, which has just come: a child of its traceparent if
// that is sampled, a new trace if it has none, else not sampled. `route` is the
// pattern of its path.
tracing::Span BeginSpan(const HttpRequest& request, absl::string_view route,
                        absl::Time now);

// Passes everything on to `writer`, and the span to `sink` when the answer is
// complete or given up. `sink` is not owned and outlives this.
std::shared_ptr<ResponseWriter> TracedWriter(
    std::shared_ptr<ResponseWriter> writer, tracing::SpanSink* sink,
    tracing::Span span);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_FRONT_TRACED_WRITER_H_
