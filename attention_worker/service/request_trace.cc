#include "attention_worker/service/request_trace.h"

#include <algorithm>
#include <utility>

namespace switchyard::attention_worker {

RequestTrace::RequestTrace(tracing::SpanSink* sink,
                           const tracing::TraceContext& parent, std::string id,
                           absl::Time start, const ExpertTrafficMeter* experts)
    : sink_(sink),
      parent_(parent),
      id_(std::move(id)),
      start_(start),
      experts_(experts) {}

void RequestTrace::Begin(absl::Time now) {
  if (experts_ == nullptr) return;
  begun_ = now;
  before_ = experts_->Read();
}

void RequestTrace::Done(const absl::Status& status,
                        const GenerationUsage& usage, absl::Time end) {
  tracing::Span whole;
  whole.context = tracing::ChildOf(parent_, tracing::RandomBits);
  whole.parent_span = parent_.span;
  whole.name = "switchyard.v1.Generation/Generate";
  whole.kind = tracing::SpanKind::kServer;
  whole.start = start_;
  whole.end = end;
  whole.attributes = {
      {"rpc.system", std::string("grpc")},
      {"switchyard.request_id", id_},
      {"gen_ai.usage.input_tokens", usage.prompt_tokens},
      {"gen_ai.usage.output_tokens", usage.output_tokens},
      {"switchyard.cached_prompt_tokens", usage.cached_prompt_tokens}};
  if (!status.ok()) whole.error = status.ToString();

  absl::Time at = start_;
  for (const auto& [name, time] : {std::pair("queue", usage.queue_time),
                                   std::pair("prefill", usage.prefill_time),
                                   std::pair("decode", usage.decode_time)}) {
    if (time <= absl::ZeroDuration()) continue;
    tracing::Span part;
    part.context = tracing::ChildOf(whole.context, tracing::RandomBits);
    part.parent_span = whole.context.span;
    part.name = name;
    part.start = at;
    part.end = at = std::min(at + time, end);
    sink_->Add(std::move(part));
  }
  if (begun_) {
    for (const auto& [worker, sum] : Difference(before_, experts_->Read())) {
      tracing::Span experts;
      experts.context = tracing::ChildOf(whole.context, tracing::RandomBits);
      experts.parent_span = whole.context.span;
      experts.name = "switchyard.v1.Expert/Connect";
      experts.kind = tracing::SpanKind::kClient;
      experts.start = *begun_;
      experts.end = end;
      experts.attributes = {
          {"rpc.system", std::string("grpc")},
          {"peer.service", worker},
          {"switchyard.expert_calls", sum.calls},
          {"switchyard.expert_rows", sum.rows},
          {"switchyard.queue_seconds", absl::ToDoubleSeconds(sum.queue)},
          {"switchyard.compute_seconds", absl::ToDoubleSeconds(sum.compute)},
          {"switchyard.wire_seconds", absl::ToDoubleSeconds(sum.wire)}};
      sink_->Add(std::move(experts));
    }
  }
  sink_->Add(std::move(whole));
}

}  // namespace switchyard::attention_worker
