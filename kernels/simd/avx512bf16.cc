// bf16_matmul for CPUs with AVX-512 BF16 besides what avx512vnni.cc needs:
// compiled with those instructions, so nothing here may run before
// kernel_table.cc has asked the CPU. The rest of the table "avx512bf16" is
// "avx512vnni"'s.
//
// As there, no header with inline functions is included, and everything but
// the pointer has internal linkage.

#include <immintrin.h>

#include <cstdint>

#include "kernels/kernel_contracts.h"

#define SWITCHYARD_INLINE inline __attribute__((always_inline))

namespace switchyard::kernels {
namespace {

// Six tokens of four rows have 24 accumulators, and leave eight registers.
constexpr int kBf16Rows = 4;
constexpr int kBf16Tokens = 6;
constexpr int kBf16RowsOfOne = 8;

#include "kernels/simd/vector_avx512.inc"

// What bf16_products.inc is made of, in the instruction that the format is made
// for. By Intel's definition, and on every Zen 4 lane that was compared
// (kernels_test), vdpbf16ps is two fused multiply-adds, the odd column first,
// that flush subnormals whatever the mode.
using Bf16Pairs = __m512i;

SWITCHYARD_INLINE Bf16Pairs LoadPairs(const char* p) {
  return _mm512_loadu_si512(p);
}
SWITCHYARD_INLINE Bf16Pairs LoadFirstPairs(const char* p, int64_t n) {
  return LoadFirstHalfPairs(p, n);
}
SWITCHYARD_INLINE Vector AddProducts(Bf16Pairs a, Bf16Pairs b, Vector sum) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a),
                          reinterpret_cast<__m512bh>(b));
}

#include "kernels/simd/bf16_products.inc"

}  // namespace

constexpr Bf16MatmulKernel kAvx512Bf16Matmul = &Bf16Matmul;

}  // namespace switchyard::kernels
