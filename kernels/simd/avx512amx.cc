// quantized_matmul for CPUs with AMX-INT8 besides what avx512vnni.cc needs:
// compiled with those instructions, so nothing here may run before
// kernel_table.cc has asked the CPU, and the system for the tiles.
//
// As there, no header with inline functions is included, and everything but
// the pointer has internal linkage.

#include <immintrin.h>

#include <cstdint>

#include "kernels/kernel_contracts.h"
#include "kernels/simd/amx_tiles.h"

#define SWITCHYARD_INLINE inline __attribute__((always_inline))

namespace switchyard::kernels {
namespace {

constexpr int kPanelsAtOnce = 1;
constexpr int kTokensAtOnce = 16;  // rows of a tile

// The instructions by hand: GCC 12's intrinsics do not say that they read
// memory, so that what is to be read may not have been written yet.
SWITCHYARD_INLINE void ShapeTiles(const TileShapes& shapes) {
  asm volatile("ldtilecfg %0" ::"m"(shapes));
}
SWITCHYARD_INLINE void LoadTokens(const int8_t* values, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm1" ::"r"(values), "r"(stride)
               : "memory");
}
SWITCHYARD_INLINE void LoadWeights(const uint8_t* quads, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm2" ::"r"(quads), "r"(stride)
               : "memory");
}
SWITCHYARD_INLINE void ClearSums() { asm volatile("tilezero %tmm0"); }
// Signed tokens, unsigned weights.
SWITCHYARD_INLINE void AddProducts() {
  asm volatile("tdpbsud %tmm2, %tmm1, %tmm0");
}
SWITCHYARD_INLINE void StoreSums(void* sums, int64_t stride) {
  asm volatile("tilestored %%tmm0, (%0,%1,1)" ::"r"(sums), "r"(stride)
               : "memory");
}
// So that no other code's switches save tiles.
SWITCHYARD_INLINE void ReleaseTiles() { asm volatile("tilerelease"); }

// Each uses what is above it.
// clang-format off
#include "kernels/simd/vector_avx512.inc"
#include "kernels/simd/quantized.inc"
#include "kernels/simd/quantized_amx.inc"
// clang-format on

}  // namespace

constexpr QuantizedMatmulKernel kAvx512AmxQuantizedMatmul = &QuantizedMatmul;

}  // namespace switchyard::kernels
