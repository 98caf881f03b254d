// Products of quantised weights, and the making of what they multiply, for
// switchyard-bench-kernels.

#ifndef SWITCHYARD_TESTS_BENCH_QUANTIZED_BENCH_H_
#define SWITCHYARD_TESTS_BENCH_QUANTIZED_BENCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/kernel_table.h"
#include "switchyard/bench/limits/limits.h"

namespace switchyard::bench {

struct QuantizedSettings {
  double seconds = 0;        // for each number
  int64_t weight_bytes = 0;  // of all matrices of one thread together
  std::vector<int64_t> token_counts;
};

// Prints what some threads reach together, each with matrices of its own, in
// huge pages, beside what the same threads read and compute at most, measured
// before and after.
void BenchQuantizedMatmul(const kernels::KernelTable& table, int threads,
                          const QuantizedSettings& settings);

// Prints the speed of quantize_row and of quantize_block, on one thread.
void BenchQuantize(const kernels::KernelTable& table,
                   const QuantizedSettings& settings);

// Prints the speed of QuantizePanel with the best table, on one thread.
void BenchQuantizePanel(const QuantizedSettings& settings);

// Seconds of one product of [512, 2048] weights of eight bits by oneDNN, from
// the caches, on one thread; `seconds` in all. UNIMPLEMENTED: not on this CPU.
absl::StatusOr<double> OneDnnQuantizedSeconds(double seconds, int64_t tokens);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_QUANTIZED_BENCH_H_
