#include "attention_worker/moe/expert_client_metrics.h"

#include <cstddef>
#include <cstdint>

namespace switchyard::attention_worker {

metrics::Histogram* AddDispatchPhase(metrics::Registry* registry,
                                     const std::string& worker,
                                     const char* phase) {
  return registry->AddHistogram(
      "switchyard_expert_dispatch_seconds",
      "Time of a call to a holder of experts, by where it was spent: encoding "
      "and handing to the transport, the way there (by an estimate of the "
      "clocks' difference), the holder's queue, its computing, the way back, "
      "accepting its outputs.",
      metrics::ShortSecondsBuckets(), {{"worker", worker}, {"phase", phase}});
}

ExpertClientMetrics::ExpertClientMetrics(metrics::Registry* registry,
                                         const std::string& worker)
    : lease_(metrics::LeaseSeries(registry, "worker", worker)),
      calls_(registry->AddCounter(
          "switchyard_expert_dispatch_calls_total",
          "Calls to holders of experts, failed ones included.",
          {{"worker", worker}})),
      rows_(registry->AddCounter("switchyard_expert_dispatch_rows_total",
                                 "Rows of activations in answered calls.",
                                 {{"worker", worker}})),
      encode_seconds_(AddDispatchPhase(registry, worker, "encode")),
      wire_out_seconds_(AddDispatchPhase(registry, worker, "wire_out")),
      queue_seconds_(AddDispatchPhase(registry, worker, "queue")),
      compute_seconds_(AddDispatchPhase(registry, worker, "compute")),
      wire_back_seconds_(AddDispatchPhase(registry, worker, "wire_back")) {
  for (size_t code = 0; code < failures_.size(); ++code) {
    failures_[code] =
        code == 0 ? nullptr
                  : registry->AddCounter(
                        "switchyard_expert_dispatch_failures_total",
                        "Calls to holders of experts that failed, by code.",
                        {{"worker", worker},
                         {"code", absl::StatusCodeToString(
                                      static_cast<absl::StatusCode>(code))}});
  }
}

void ExpertClientMetrics::CallDone(int64_t rows, const Times& times) {
  calls_->Increment();
  rows_->Increment(static_cast<double>(rows));
  wire_out_seconds_->Observe(absl::ToDoubleSeconds(times.wire_out));
  queue_seconds_->Observe(absl::ToDoubleSeconds(times.queue));
  compute_seconds_->Observe(absl::ToDoubleSeconds(times.compute));
  wire_back_seconds_->Observe(absl::ToDoubleSeconds(times.wire_back));
}

void ExpertClientMetrics::CallSent(absl::Duration took) {
  encode_seconds_->Observe(absl::ToDoubleSeconds(took));
}

void ExpertClientMetrics::CallFailed(absl::StatusCode code) {
  calls_->Increment();
  const auto index = static_cast<size_t>(code);
  const bool known = index > 0 && index < failures_.size();
  failures_[known ? index : static_cast<size_t>(absl::StatusCode::kUnknown)]
      ->Increment();
}

}  // namespace switchyard::attention_worker
