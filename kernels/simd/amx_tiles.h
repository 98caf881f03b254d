// The body of quantized_matmul on AMX's tiles: the shapes of tiles as ldtilecfg
// reads them, and what each tile is for. No inline functions: seen by code
// compiled for AVX-512.

#ifndef SWITCHYARD_KERNELS_SIMD_AMX_TILES_H_
#define SWITCHYARD_KERNELS_SIMD_AMX_TILES_H_

#include <cstdint>

#include "kernels/kernel_contracts.h"

namespace switchyard::kernels {

inline constexpr int kSumsTile = 0;     // [tokens, 16 rows], s32
inline constexpr int kTokensTile = 1;   // [tokens, 32 columns], s8
inline constexpr int kWeightsTile = 2;  // [8 quads of columns, 16 rows], u8

struct alignas(64) TileShapes {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileShapes) == 64);

// For CPUs with AVX-512 VNNI and AMX-INT8, in processes that the system gave
// the tiles (kernels/amx_kernels.h).
extern const QuantizedMatmulKernel kAvx512AmxQuantizedMatmul;

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_SIMD_AMX_TILES_H_
