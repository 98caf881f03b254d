#include "tests/bench/limits.h"

#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/strings/string_view.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace switchyard::bench {
namespace {

// More chains than latency (4 or 5 cycles) times two units need. Twelve, since
// AVX2 has only sixteen registers. They start from different values: GCC
// computes equal chains once.
constexpr int kChains = 12;
constexpr int64_t kSteps = 20'000;

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) float Avx2Chains(float start) {
  __m256 chain[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chain[i] = _mm256_set1_ps(start + i);
  const __m256 factor = _mm256_set1_ps(0.5f);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      chain[i] = _mm256_fmadd_ps(chain[i], factor, factor);
    }
  }
  __m256 sum = chain[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sum = _mm256_add_ps(sum, chain[i]);
  return _mm256_cvtss_f32(sum);
}

__attribute__((target("avx512f"))) float Avx512Chains(float start) {
  __m512 chain[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chain[i] = _mm512_set1_ps(start + i);
  const __m512 factor = _mm512_set1_ps(0.5f);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      chain[i] = _mm512_fmadd_ps(chain[i], factor, factor);
    }
  }
  __m512 sum = chain[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, chain[i]);
  return _mm512_cvtss_f32(sum);
}
#endif

// Keeps the compiler from dropping what nobody reads.
volatile uint64_t sink;

}  // namespace

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double MeasureReadBandwidth(double seconds) {
  // Read in slices, each too short to be interrupted often; a slice is out of
  // the caches again when its turn comes.
  constexpr size_t kWords = (size_t{512} << 20) / sizeof(uint64_t);
  constexpr size_t kSlice = (size_t{8} << 20) / sizeof(uint64_t);
  const std::vector<uint64_t> memory(kWords, 1);
  size_t begin = 0;
  const double best = BestSeconds(seconds, [&memory, &begin] {
    // Eight sums, which the compiler puts into registers of any width.
    uint64_t sum[8] = {};
    for (size_t i = begin; i < begin + kSlice; i += 8) {
      for (size_t j = 0; j < 8; ++j) sum[j] += memory[i + j];
    }
    for (const uint64_t part : sum) sink = sink + part;
    begin = (begin + kSlice) % kWords;
  });
  return static_cast<double>(kSlice * sizeof(uint64_t)) / best;
}

double MeasureFmaPeak(absl::string_view isa, double seconds) {
  float (*chains)(float) = nullptr;
  int lanes = 0;
#if defined(__x86_64__)
  if (isa == "avx2") {
    chains = &Avx2Chains;
    lanes = 8;
  } else if (isa == "avx512") {
    chains = &Avx512Chains;
    lanes = 16;
  }
#endif
  if (chains == nullptr) return 0;
  volatile float start = 1.0f;  // so that nothing can be computed in advance
  const double best = BestSeconds(seconds, [&] {
    const float sum = chains(start);
    sink = sink + (sum > 0 ? 1 : 0);
  });
  return 2.0 * lanes * kChains * static_cast<double>(kSteps) / best;
}

}  // namespace switchyard::bench
