#include "switchyard/bench/limits/instructions.h"

#include <atomic>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace switchyard::bench {
namespace {

// Keeps the compiler from dropping what nobody reads, and from knowing in
// advance what comes out.
std::atomic<uint64_t> sink{1};

void Consume(uint64_t value) {
  // Any value that the sums might have, for all that the compiler knows.
  if (value == 0x1234567) sink.store(value, std::memory_order_relaxed);
}

#if defined(__x86_64__)

// More chains than latency (4 or 5 cycles) times two units need. Twelve, since
// AVX2 has only sixteen registers. They start from different values: GCC
// computes equal chains once.
constexpr int kChains = 12;
constexpr int64_t kSteps = 20'000;

__attribute__((target("avx2,fma"))) void FmaAvx2() {
  const float start = static_cast<float>(sink.load(std::memory_order_relaxed));
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
  Consume(static_cast<uint64_t>(_mm256_cvtss_f32(sum)));
}

__attribute__((target("avx512f"))) void FmaAvx512() {
  const float start = static_cast<float>(sink.load(std::memory_order_relaxed));
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
  Consume(static_cast<uint64_t>(_mm512_cvtss_f32(sum)));
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) void Bf16Dot() {
  const float start = static_cast<float>(sink.load(std::memory_order_relaxed));
  __m512 chain[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chain[i] = _mm512_set1_ps(start + i);
  const __m512bh factor =
      _mm512_cvtne2ps_pbh(_mm512_set1_ps(start), _mm512_set1_ps(start));
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      chain[i] = _mm512_dpbf16_ps(chain[i], factor, factor);
    }
  }
  __m512 sum = chain[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, chain[i]);
  Consume(static_cast<uint64_t>(_mm512_cvtss_f32(sum)));
}

// GCC keeps accumulators in registers only as vectors of what the instruction
// adds to: as __m512i, eight 64-bit integers for it, they are moved about.
typedef int32_t Int32x16 __attribute__((vector_size(64)));
typedef int32_t Int32x8 __attribute__((vector_size(32)));

__attribute__((target("avx512f,avx512bw,avx512vnni"))) void Int8Vnni() {
  const auto start = static_cast<int32_t>(sink.load(std::memory_order_relaxed));
  Int32x16 chain[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chain[i] = Int32x16{} + start + i;
  const __m512i bytes = _mm512_set1_epi32(start);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      chain[i] = reinterpret_cast<Int32x16>(_mm512_dpbusd_epi32(
          reinterpret_cast<__m512i>(chain[i]), bytes, bytes));
    }
  }
  Int32x16 sum = chain[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sum += chain[i];
  Consume(static_cast<uint64_t>(sum[0]));
}

__attribute__((target("avx2"))) void Int8Avx2() {
  const auto start = static_cast<int32_t>(sink.load(std::memory_order_relaxed));
  Int32x8 chain[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) chain[i] = Int32x8{} + start + i;
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i bytes = _mm256_set1_epi32(start);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      // Of the chain itself, or the product would be computed once for all.
      const __m256i pairs =
          _mm256_maddubs_epi16(reinterpret_cast<__m256i>(chain[i]), bytes);
      chain[i] += reinterpret_cast<Int32x8>(_mm256_madd_epi16(pairs, ones));
    }
  }
  Int32x8 sum = chain[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) sum += chain[i];
  Consume(static_cast<uint64_t>(sum[0]));
}

__attribute__((target("avx512f"))) void ReadAvx512(const char* data,
                                                   int64_t bytes) {
  __m512i sum[4] = {};
  for (int64_t i = 0; i < bytes; i += 4 * 64) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      sum[j] = _mm512_xor_si512(sum[j], _mm512_load_si512(data + i + j * 64));
    }
  }
  const __m512i all = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]),
                                       _mm512_xor_si512(sum[2], sum[3]));
  Consume(
      static_cast<uint64_t>(_mm_cvtsi128_si64(_mm512_castsi512_si128(all))));
}

__attribute__((target("avx2"))) void ReadAvx2(const char* data, int64_t bytes) {
  __m256i sum[8] = {};
  for (int64_t i = 0; i < bytes; i += 8 * 32) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      sum[j] = _mm256_xor_si256(
          sum[j], _mm256_load_si256(
                      reinterpret_cast<const __m256i*>(data + i + j * 32)));
    }
  }
  for (int j = 1; j < 8; ++j) sum[0] = _mm256_xor_si256(sum[0], sum[j]);
  Consume(
      static_cast<uint64_t>(_mm_cvtsi128_si64(_mm256_castsi256_si128(sum[0]))));
}

constexpr double MultiplyAdds(int lanes) {
  return 2.0 * lanes * kChains * static_cast<double>(kSteps);
}

#endif

void ReadAnywhere(const char* data, int64_t bytes) {
  const auto* const words = reinterpret_cast<const uint64_t*>(data);
  uint64_t sum[8] = {};
  for (int64_t i = 0; i < bytes / 8; i += 8) {
    for (int64_t j = 0; j < 8; ++j) sum[j] ^= words[i + j];
  }
  for (const uint64_t part : sum) Consume(part);
}

}  // namespace

Chains FindChains(Operation operation) {
#if defined(__x86_64__)
  switch (operation) {
    case Operation::kFmaAvx2:
      if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        break;
      }
      return {&FmaAvx2, MultiplyAdds(8)};
    case Operation::kFmaAvx512:
      if (!__builtin_cpu_supports("avx512f")) break;
      return {&FmaAvx512, MultiplyAdds(16)};
    case Operation::kBf16Dot:
      if (!__builtin_cpu_supports("avx512bf16")) break;
      return {&Bf16Dot, MultiplyAdds(32)};
    case Operation::kInt8Avx2:
      if (!__builtin_cpu_supports("avx2")) break;
      return {&Int8Avx2, MultiplyAdds(32)};
    case Operation::kInt8Vnni:
      if (!__builtin_cpu_supports("avx512bw") ||
          !__builtin_cpu_supports("avx512vnni")) {
        break;
      }
      return {&Int8Vnni, MultiplyAdds(64)};
  }
#endif
  return {};
}

void ReadMemory(const char* data, int64_t bytes) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return ReadAvx512(data, bytes);
  if (__builtin_cpu_supports("avx2")) return ReadAvx2(data, bytes);
#endif
  ReadAnywhere(data, bytes);
}

}  // namespace switchyard::bench
