// What expert workers have done for this process, summed up: for traces, which
// want what came to each of them between two moments.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_TRAFFIC_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_TRAFFIC_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace switchyard::attention_worker {

// Of answered calls. Times as ExpertClientMetrics::Times has them; of calls
// that were on their way at once, all count.
struct ExpertTraffic {
  // Of the meter: another number, another sum, which began at zero.
  uint64_t series = 0;
  int64_t calls = 0;
  int64_t rows = 0;
  absl::Duration queue;
  absl::Duration compute;
  absl::Duration wire;  // there and back
};

// By worker, as ExpertClient::name() has it.
using ExpertTraffics = std::map<std::string, ExpertTraffic>;

// Without workers to whom nothing came.
ExpertTraffics Difference(const ExpertTraffics& before,
                          const ExpertTraffics& after);

// Sums since the process began, but of workers to whom nothing has come for
// `forget_after`: pods come under new addresses for ever. Thread-safe.
class ExpertTrafficMeter {
 public:
  explicit ExpertTrafficMeter(const Clock* clock = Clock::Real(),
                              absl::Duration forget_after = absl::Hours(1))
      : clock_(clock), forget_after_(forget_after) {}

  void Add(const std::string& worker, const ExpertTraffic& more)
      ABSL_LOCKS_EXCLUDED(mutex_);
  ExpertTraffics Read() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void ForgetIdle(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock* const clock_;
  const absl::Duration forget_after_;
  mutable Mutex mutex_;
  ExpertTraffics sums_ ABSL_GUARDED_BY(mutex_);
  // Of the same workers: when something came last.
  std::map<std::string, absl::Time> last_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_series_ ABSL_GUARDED_BY(mutex_) = 1;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_TRAFFIC_H_
