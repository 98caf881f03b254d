// quantized_matmul for CPUs with AVX-512 VNNI besides what avx512.cc needs:
// compiled with those instructions, so nothing here may run before
// kernel_table.cc has asked the CPU. The rest of the table "avx512vnni" is
// avx512.cc's.
//
// As there, no header with inline functions is included, and everything but
// the pointer has internal linkage.

#include <immintrin.h>

#include <cstdint>

#include "kernels/kernel_contracts.h"

#define SWITCHYARD_INLINE inline __attribute__((always_inline))

namespace switchyard::kernels {
namespace {

// Seven tokens of two panels have 28 accumulators, and leave four registers.
constexpr int kPanelsAtOnce = 2;
constexpr int kTokensAtOnce = 7;

// Each uses what is above it.
// clang-format off
#include "kernels/simd/vector_avx512.inc"
#include "kernels/simd/quantized.inc"
#include "kernels/simd/quantized_vnni.inc"
// clang-format on

}  // namespace

constexpr QuantizedMatmulKernel kAvx512VnniQuantizedMatmul = &QuantizedMatmul;

}  // namespace switchyard::kernels
