// The spans of one request here: how long it waited, read its prompt, decoded.

#ifndef SWITCHYARD_ATTENTION_WORKER_SERVICE_REQUEST_TRACE_H_
#define SWITCHYARD_ATTENTION_WORKER_SERVICE_REQUEST_TRACE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attention_worker/core/engine.h"
#include "tracing/span/span.h"

namespace switchyard::attention_worker {

class RequestTrace {
 public:
  // Of request `id`, which came at `start` from whoever has span `parent`.
  // `sink` is not owned and outlives this.
  RequestTrace(tracing::SpanSink* sink, const tracing::TraceContext& parent,
               std::string id, absl::Time start);

  // The request has ended: gives its spans to the sink. Once.
  void Done(const absl::Status& status, const GenerationUsage& usage,
            absl::Time end);

 private:
  tracing::SpanSink* const sink_;
  const tracing::TraceContext parent_;
  const std::string id_;
  const absl::Time start_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SERVICE_REQUEST_TRACE_H_
