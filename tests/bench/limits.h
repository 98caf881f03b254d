// What the machine can do at most, measured beside the kernels: a share of a
// limit from another run, or another machine, says nothing.

#ifndef SWITCHYARD_TESTS_BENCH_LIMITS_H_
#define SWITCHYARD_TESTS_BENCH_LIMITS_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace switchyard::bench {

// Shortest time in seconds of several calls of `body`, for `seconds` in all.
// Best, not mean: other work on the machine only ever adds.
template <typename Body>
double BestSeconds(double seconds, Body body);

// Bytes per second that one thread reads from memory, from a buffer much
// greater than the caches.
double MeasureReadBandwidth(double seconds);

// Floating-point operations per second (a fused multiply-add is two) of one
// thread with the registers of `isa`, "avx2" or "avx512", which this CPU must
// have; 0 for any other name.
double MeasureFmaPeak(absl::string_view isa, double seconds);

// Seconds since some fixed moment.
double Now();

template <typename Body>
double BestSeconds(double seconds, Body body) {
  const double end = Now() + seconds;
  double best = 0;
  do {
    const double start = Now();
    body();
    const double taken = Now() - start;
    if (best == 0 || taken < best) best = taken;
  } while (Now() < end);
  return best;
}

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_LIMITS_H_
