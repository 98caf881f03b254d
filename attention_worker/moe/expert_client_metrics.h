// What every client counts about the holder behind it, whatever the transport.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_METRICS_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_METRICS_H_

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "metrics/registry.h"
#include "metrics/series_lease.h"

namespace switchyard::attention_worker {

// A part of a call's time: switchyard_expert_dispatch_seconds{worker,phase}.
// Whoever spends it observes it: the client, and the dispatcher for "accept".
metrics::Histogram* AddDispatchPhase(metrics::Registry* registry,
                                     const std::string& worker,
                                     const char* phase);

// Handles, made once with the client: as long as there is one, series of that
// worker are not forgotten. Thread-safe.
class ExpertClientMetrics {
 public:
  // `worker` is the label: the client's name(). `registry` outlives this.
  ExpertClientMetrics(metrics::Registry* registry, const std::string& worker);

  // Where an answered call's time went, once it was sent. For a holder in this
  // process all is `compute`.
  struct Times {
    absl::Duration wire_out;
    absl::Duration queue;
    absl::Duration compute;
    absl::Duration wire_back;
  };
  void CallDone(int64_t rows, const Times& times);
  // A call was encoded and given to the transport, which took so long.
  void CallSent(absl::Duration took);
  void CallFailed(absl::StatusCode code);

 private:
  const metrics::SeriesLease lease_;  // before the handles
  metrics::Counter* const calls_;
  metrics::Counter* const rows_;
  metrics::Histogram* const encode_seconds_;
  metrics::Histogram* const wire_out_seconds_;
  metrics::Histogram* const queue_seconds_;
  metrics::Histogram* const compute_seconds_;
  metrics::Histogram* const wire_back_seconds_;
  // By status code, 0 to 16.
  std::array<metrics::Counter*, 17> failures_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_METRICS_H_
