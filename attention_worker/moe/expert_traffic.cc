#include "attention_worker/moe/expert_traffic.h"

namespace switchyard::attention_worker {

ExpertTraffics Difference(const ExpertTraffics& before,
                          const ExpertTraffics& after) {
  ExpertTraffics difference;
  for (const auto& [worker, sum] : after) {
    const auto found = before.find(worker);
    const ExpertTraffic none;
    const ExpertTraffic& old = found == before.end() ? none : found->second;
    if (sum.calls == old.calls) continue;
    difference[worker] = {.calls = sum.calls - old.calls,
                          .rows = sum.rows - old.rows,
                          .queue = sum.queue - old.queue,
                          .compute = sum.compute - old.compute,
                          .wire = sum.wire - old.wire};
  }
  return difference;
}

void ExpertTrafficMeter::Add(const std::string& worker,
                             const ExpertTraffic& more) {
  MutexLock lock(&mutex_);
  ExpertTraffic& sum = sums_[worker];
  sum.calls += more.calls;
  sum.rows += more.rows;
  sum.queue += more.queue;
  sum.compute += more.compute;
  sum.wire += more.wire;
}

ExpertTraffics ExpertTrafficMeter::Read() const {
  MutexLock lock(&mutex_);
  return sums_;
}

}  // namespace switchyard::attention_worker
