// What every client counts about the holder behind it, whatever the transport.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_METRICS_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_METRICS_H_

#include <array>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "metrics/registry.h"

namespace switchyard::attention_worker {

// Handles, made once with the client. Thread-safe.
class ExpertClientMetrics {
 public:
  // `worker` is the label: the client's name(). `registry` outlives this.
  ExpertClientMetrics(metrics::Registry* registry, const std::string& worker);

  // A call that was answered: `total` from Forward to the reply, of which the
  // holder says that `queue` and `compute` were spent there. The rest is the
  // wire's. A holder's claims beyond `total` are cut.
  void CallDone(int64_t rows, absl::Duration total, absl::Duration queue,
                absl::Duration compute);
  void CallFailed(absl::StatusCode code);

 private:
  metrics::Counter* const calls_;
  metrics::Counter* const rows_;
  metrics::Histogram* const queue_seconds_;
  metrics::Histogram* const compute_seconds_;
  metrics::Histogram* const wire_seconds_;
  // By status code, 0 to 16.
  std::array<metrics::Counter*, 17> failures_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_METRICS_H_
