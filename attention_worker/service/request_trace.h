// The spans of one request here: how long it waited, read its prompt, decoded,
// and what each expert worker did meanwhile.

#ifndef SWITCHYARD_ATTENTION_WORKER_SERVICE_REQUEST_TRACE_H_
#define SWITCHYARD_ATTENTION_WORKER_SERVICE_REQUEST_TRACE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/moe/expert_traffic.h"
#include "tracing/span/span.h"

namespace switchyard::attention_worker {

class RequestTrace {
 public:
  // Of request `id`, which came at `start` from whoever has span `parent`.
  // `sink` and `experts` are not owned and outlive this; `experts` may be null:
  // there are no expert workers.
  RequestTrace(tracing::SpanSink* sink, const tracing::TraceContext& parent,
               std::string id, absl::Time start,
               const ExpertTrafficMeter* experts);

  // It has waited. Not called for a request that ends before. What expert
  // workers do from now on is its own, and its companions' of the same steps:
  // they share calls.
  void Begin(absl::Time now);

  // The request has ended: gives its spans to the sink. Once.
  void Done(const absl::Status& status, const GenerationUsage& usage,
            absl::Time end);

 private:
  tracing::SpanSink* const sink_;
  const tracing::TraceContext parent_;
  const std::string id_;
  const absl::Time start_;
  const ExpertTrafficMeter* const experts_;
  absl::optional<absl::Time> begun_;
  ExpertTraffics before_;  // of begun_
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SERVICE_REQUEST_TRACE_H_
