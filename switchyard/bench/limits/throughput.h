// How much work some threads do a second, together.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_LIMITS_THROUGHPUT_H_
#define SWITCHYARD_SWITCHYARD_BENCH_LIMITS_THROUGHPUT_H_

#include "absl/functional/function_ref.h"
#include "switchyard/bench/limits/limits.h"

namespace switchyard::bench {

// Starts `threads` threads that each call piece(its number) again and again for
// about `seconds` (at least one window), and counts `piece_size` for every
// call. A piece should take some 50 us. Threads stay on CPUs of their own, as
// far as this process has so many; the caller sleeps.
Rate MeasureThroughput(int threads, double seconds, double piece_size,
                       absl::FunctionRef<void(int thread)> piece);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_LIMITS_THROUGHPUT_H_
