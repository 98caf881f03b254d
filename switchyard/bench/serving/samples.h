// Numbers that were measured several times.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_SAMPLES_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_SAMPLES_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"

namespace switchyard::bench {

// The least value that `share` of the values are not above (nearest rank); 0 of
// none. `share`: [0, 1].
inline double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  const size_t index = static_cast<size_t>(
      std::clamp(rank - 1, 0.0, static_cast<double>(values.size() - 1)));
  std::nth_element(values.begin(),
                   values.begin() + static_cast<std::ptrdiff_t>(index),
                   values.end());
  return values[index];
}

// Of an even number, the mean of both in the middle.
inline double Median(const std::vector<double>& values) {
  std::vector<double> negative;
  negative.reserve(values.size());
  for (const double value : values) negative.push_back(-value);
  return (Percentile(values, 0.5) - Percentile(negative, 0.5)) / 2;
}

// Seconds.
struct Latency {
  double p50 = 0;
  double p99 = 0;
  double max = 0;
};

inline Latency LatencyOf(const std::vector<double>& seconds) {
  return {.p50 = Percentile(seconds, 0.5),
          .p99 = Percentile(seconds, 0.99),
          .max = Percentile(seconds, 1)};
}

// Adds the seconds between one of `times` and the next to `gaps`: those whose
// end is in (from, to].
inline void AddGaps(absl::Span<const absl::Time> times,
                    std::vector<double>* gaps,
                    absl::Time from = absl::InfinitePast(),
                    absl::Time to = absl::InfiniteFuture()) {
  for (size_t i = 1; i < times.size(); ++i) {
    if (times[i] <= from || times[i] > to) continue;
    gaps->push_back(absl::ToDoubleSeconds(times[i] - times[i - 1]));
  }
}

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_SAMPLES_H_
