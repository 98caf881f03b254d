#include "expert_worker/service/expert_metrics.h"

#include <cstddef>
#include <string>

namespace switchyard::expert_worker {

ExpertMetrics::ExpertMetrics(metrics::Registry* registry) {
  for (size_t code = 0; code < requests.size(); ++code) {
    requests[code] = registry->AddCounter(
        "switchyard_expert_requests_total", "Compute messages, by answer.",
        {{"code",
          absl::StatusCodeToString(static_cast<absl::StatusCode>(code))}});
  }
  for (size_t i = 0; i < refused_handshakes.size(); ++i) {
    if (static_cast<Refusal>(i) == Refusal::kNone) {
      refused_handshakes[i] = nullptr;
      continue;
    }
    refused_handshakes[i] = registry->AddCounter(
        "switchyard_expert_refused_handshakes_total",
        "Streams of attention workers that were refused, by what differed.",
        {{"reason", std::string(RefusalName(static_cast<Refusal>(i)))}});
  }
  rows = registry->AddCounter("switchyard_expert_rows_total",
                              "Rows of activations that were computed.");
  outputs = registry->AddCounter("switchyard_expert_outputs_total",
                                 "(row, expert) pairs that were computed.");
  queue_seconds = registry->AddHistogram(
      "switchyard_expert_queue_seconds",
      "How long a request waited for the compute thread.",
      metrics::ShortSecondsBuckets());
  compute_seconds = registry->AddHistogram("switchyard_expert_compute_seconds",
                                           "Time of one batch's arithmetic.",
                                           metrics::ShortSecondsBuckets());
  compute_seconds_total = registry->AddCounter(
      "switchyard_expert_busy_seconds_total",
      "Time spent computing; its rate is the share of time that is used.");
  batches = registry->AddCounter(
      "switchyard_expert_batches_total",
      "Runs of the engine; requests of one layer that wait share one.");
  queued_bytes = registry->AddGauge(
      "switchyard_expert_queued_bytes",
      "Activations and outputs of requests that wait or are computed.");
  received_bytes = registry->AddCounter(
      "switchyard_expert_received_bytes_total", "Bytes of messages received.");
  sent_bytes = registry->AddCounter("switchyard_expert_sent_bytes_total",
                                    "Bytes of messages sent.");
  resident_bytes = registry->AddGauge("switchyard_expert_resident_bytes",
                                      "Bytes of weights of held experts.");
  held_experts = registry->AddGauge("switchyard_expert_held_experts",
                                    "(layer, expert) pairs that are held.");
  connected_streams =
      registry->AddGauge("switchyard_expert_connected_streams",
                         "Streams of attention workers past the handshake.");
  loading_progress = registry->AddGauge("switchyard_loading_progress",
                                        "Share of the weights loaded, 0 to 1.");
}

void ExpertMetrics::RequestAnswered(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  requests[index < requests.size()
               ? index
               : static_cast<size_t>(absl::StatusCode::kUnknown)]
      ->Increment();
}

void ExpertMetrics::HandshakeRefused(Refusal refusal) {
  refused_handshakes[static_cast<size_t>(refusal)]->Increment();
}

}  // namespace switchyard::expert_worker
