// What the dispatcher counts, over all holders. Handles, made once with it.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_DISPATCH_METRICS_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_DISPATCH_METRICS_H_

#include "metrics/registry.h"

namespace switchyard::attention_worker {

// Thread-safe.
struct DispatchMetrics {
  // `registry` outlives this.
  explicit DispatchMetrics(metrics::Registry* registry);

  metrics::Histogram* seconds;
  // The parts of `seconds` on the dispatching thread.
  metrics::Histogram* quantize_seconds;
  metrics::Histogram* send_seconds;
  metrics::Histogram* overlap_seconds;
  metrics::Histogram* wait_seconds;
  metrics::Counter* pairs;
  metrics::Counter* resent_pairs;
  metrics::Counter* resent_calls;
  metrics::Counter* hedges_won;
  metrics::Counter* hedges_lost;
  // Pairs computed twice, by how that went.
  metrics::Counter* verified_agreed;
  metrics::Counter* verified_differed;
  metrics::Counter* verified_alone;
  metrics::Counter* mismatches;
  metrics::Counter* failed_sequences;
  metrics::Counter* late_replies;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_DISPATCH_METRICS_H_
