#include "attention_worker/moe/expert_traffic.h"

namespace switchyard::attention_worker {

ExpertTraffics Difference(const ExpertTraffics& before,
                          const ExpertTraffics& after) {
  ExpertTraffics difference;
  for (const auto& [worker, sum] : after) {
    const auto found = before.find(worker);
    const ExpertTraffic none;
    // One that was forgotten meanwhile has begun anew.
    const bool known =
        found != before.end() && found->second.series == sum.series;
    const ExpertTraffic& old = known ? found->second : none;
    if (sum.calls == old.calls) continue;
    difference[worker] = {.series = sum.series,
                          .calls = sum.calls - old.calls,
                          .rows = sum.rows - old.rows,
                          .queue = sum.queue - old.queue,
                          .compute = sum.compute - old.compute,
                          .wire = sum.wire - old.wire};
  }
  return difference;
}

void ExpertTrafficMeter::Add(const std::string& worker,
                             const ExpertTraffic& more) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  if (sums_.find(worker) == sums_.end()) {
    ForgetIdle(now);
    sums_[worker].series = next_series_++;
  }
  last_[worker] = now;
  ExpertTraffic& sum = sums_[worker];
  sum.calls += more.calls;
  sum.rows += more.rows;
  sum.queue += more.queue;
  sum.compute += more.compute;
  sum.wire += more.wire;
}

void ExpertTrafficMeter::ForgetIdle(absl::Time now) {
  for (auto it = last_.begin(); it != last_.end();) {
    if (now - it->second < forget_after_) {
      ++it;
      continue;
    }
    sums_.erase(it->first);
    it = last_.erase(it);
  }
}

ExpertTraffics ExpertTrafficMeter::Read() const {
  MutexLock lock(&mutex_);
  return sums_;
}

}  // namespace switchyard::attention_worker
