#include "attention_worker/moe/expert_client_metrics.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace switchyard::attention_worker {
namespace {

metrics::Histogram* AddPhase(metrics::Registry* registry,
                             const std::string& worker, const char* phase) {
  return registry->AddHistogram(
      "switchyard_expert_dispatch_seconds",
      "Time of an answered call to a holder of experts, by where it was spent: "
      "the holder's queue, its computing, the wire (all the rest).",
      metrics::ShortSecondsBuckets(), {{"worker", worker}, {"phase", phase}});
}

}  // namespace

ExpertClientMetrics::ExpertClientMetrics(metrics::Registry* registry,
                                         const std::string& worker)
    : calls_(registry->AddCounter(
          "switchyard_expert_dispatch_calls_total",
          "Calls to holders of experts, failed ones included.",
          {{"worker", worker}})),
      rows_(registry->AddCounter("switchyard_expert_dispatch_rows_total",
                                 "Rows of activations in answered calls.",
                                 {{"worker", worker}})),
      queue_seconds_(AddPhase(registry, worker, "queue")),
      compute_seconds_(AddPhase(registry, worker, "compute")),
      wire_seconds_(AddPhase(registry, worker, "wire")) {
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

void ExpertClientMetrics::CallDone(int64_t rows, absl::Duration total,
                                   absl::Duration queue,
                                   absl::Duration compute) {
  total = std::max(total, absl::ZeroDuration());
  compute = std::clamp(compute, absl::ZeroDuration(), total);
  queue = std::clamp(queue, absl::ZeroDuration(), total - compute);
  calls_->Increment();
  rows_->Increment(static_cast<double>(rows));
  queue_seconds_->Observe(absl::ToDoubleSeconds(queue));
  compute_seconds_->Observe(absl::ToDoubleSeconds(compute));
  wire_seconds_->Observe(absl::ToDoubleSeconds(total - queue - compute));
}

void ExpertClientMetrics::CallFailed(absl::StatusCode code) {
  calls_->Increment();
  const auto index = static_cast<size_t>(code);
  const bool known = index > 0 && index < failures_.size();
  failures_[known ? index : static_cast<size_t>(absl::StatusCode::kUnknown)]
      ->Increment();
}

}  // namespace switchyard::attention_worker
