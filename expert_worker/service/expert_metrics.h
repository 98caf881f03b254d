// What an expert worker counts. Handles, made once with the server.

#ifndef SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_METRICS_H_
#define SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_METRICS_H_

#include <array>

#include "absl/status/status.h"
#include "expert_worker/service/expert_codec.h"
#include "metrics/registry.h"

namespace switchyard::expert_worker {

// Thread-safe.
struct ExpertMetrics {
  // `registry` outlives this.
  explicit ExpertMetrics(metrics::Registry* registry);

  void RequestAnswered(absl::StatusCode code);
  void HandshakeRefused(Refusal refusal);

  std::array<metrics::Counter*, 17> requests;  // by status code, 0 to 16
  metrics::Counter* rows;
  metrics::Counter* outputs;
  metrics::Histogram* queue_seconds;
  metrics::Histogram* compute_seconds;
  metrics::Counter* compute_seconds_total;
  metrics::Counter* batches;
  metrics::Gauge* queued_bytes;
  metrics::Counter* received_bytes;
  metrics::Counter* sent_bytes;
  metrics::Gauge* resident_bytes;
  metrics::Gauge* held_experts;
  metrics::Gauge* connected_streams;
  std::array<metrics::Counter*, kNumRefusals> refused_handshakes;
  metrics::Gauge* loading_progress;
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_METRICS_H_
