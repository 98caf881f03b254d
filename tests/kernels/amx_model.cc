#include "tests/kernels/amx_model.h"

#include <immintrin.h>

#include <cstdint>

#include "kernels/kernel_contracts.h"
#include "kernels/simd/amx_tiles.h"

#define SWITCHYARD_INLINE inline __attribute__((always_inline))

namespace switchyard::kernels {
namespace {

constexpr int kPanelsAtOnce = 1;
constexpr int kTokensAtOnce = 16;

// Of a thread, as the processor's are.
struct Tiles {
  TileShapes shapes;
  uint8_t bytes[3][16][64];
};
thread_local Tiles tiles;

void Require(bool condition) {
  if (!condition) __builtin_trap();
}

void RequireShapes() { Require(tiles.shapes.palette == 1); }

void ShapeTiles(const TileShapes& shapes) {
  Require(reinterpret_cast<uintptr_t>(&shapes) % 64 == 0);
  Require(shapes.start_row == 0);
  for (const uint8_t byte : shapes.reserved) Require(byte == 0);
  for (int tile = 0; tile < 16; ++tile) {
    Require(shapes.rows[tile] <= 16 && shapes.row_bytes[tile] <= 64);
    Require(tile < 3 ? shapes.rows[tile] > 0 && shapes.row_bytes[tile] > 0
                     : shapes.rows[tile] == 0 && shapes.row_bytes[tile] == 0);
  }
  tiles = {};  // as ldtilecfg does
  tiles.shapes = shapes;
}

void LoadTile(int tile, const void* from, int64_t stride) {
  RequireShapes();
  for (int row = 0; row < tiles.shapes.rows[tile]; ++row) {
    __builtin_memcpy(tiles.bytes[tile][row],
                     static_cast<const uint8_t*>(from) + row * stride,
                     tiles.shapes.row_bytes[tile]);
  }
}
void LoadTokens(const int8_t* values, int64_t stride) {
  LoadTile(kTokensTile, values, stride);
}
void LoadWeights(const uint8_t* quads, int64_t stride) {
  LoadTile(kWeightsTile, quads, stride);
}
void ClearSums() {
  RequireShapes();
  __builtin_memset(tiles.bytes[kSumsTile], 0, sizeof(tiles.bytes[kSumsTile]));
}

// tdpbsud as Intel's manual has it: s8 of the first operand, u8 of the second.
void AddProducts() {
  RequireShapes();
  const int m = tiles.shapes.rows[kSumsTile];
  const int n = tiles.shapes.row_bytes[kSumsTile] / 4;
  const int k = tiles.shapes.row_bytes[kTokensTile] / 4;
  Require(tiles.shapes.rows[kTokensTile] == m);
  Require(tiles.shapes.rows[kWeightsTile] == k);
  Require(tiles.shapes.row_bytes[kWeightsTile] == 4 * n);
  for (int row = 0; row < m; ++row) {
    for (int quad = 0; quad < k; ++quad) {
      for (int column = 0; column < n; ++column) {
        uint8_t* const place = tiles.bytes[kSumsTile][row] + 4 * column;
        int32_t sum;
        __builtin_memcpy(&sum, place, sizeof(sum));
        for (int i = 0; i < 4; ++i) {
          const uint8_t token = tiles.bytes[kTokensTile][row][4 * quad + i];
          sum += static_cast<int8_t>(token) *
                 tiles.bytes[kWeightsTile][quad][4 * column + i];
        }
        __builtin_memcpy(place, &sum, sizeof(sum));
      }
    }
  }
}

void StoreSums(void* sums, int64_t stride) {
  RequireShapes();
  for (int row = 0; row < tiles.shapes.rows[kSumsTile]; ++row) {
    __builtin_memcpy(static_cast<uint8_t*>(sums) + row * stride,
                     tiles.bytes[kSumsTile][row],
                     tiles.shapes.row_bytes[kSumsTile]);
  }
}
void ReleaseTiles() { tiles = {}; }

// Each uses what is above it.
// clang-format off
#include "kernels/simd/vector_avx512.inc"
#include "kernels/simd/quantized.inc"
#include "kernels/simd/quantized_amx.inc"
// clang-format on

}  // namespace

constexpr QuantizedMatmulKernel kModelledAmxQuantizedMatmul = &QuantizedMatmul;

}  // namespace switchyard::kernels
