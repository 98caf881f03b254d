#include "experts/expert_ffn.h"

#include <algorithm>
#include <vector>

namespace switchyard::experts {
namespace {

// A tile of inner activations: 16 KiB for each of gate and up. One block of
// columns, so that it can be quantised at once.
constexpr int64_t kTileTokens = 64;
constexpr int64_t kTileColumns = kernels::kBlockColumns;

struct Tile {
  int64_t token, tokens;    // from `token` on
  int64_t column, columns;  // from `column` on
};

// silu(gate) * up of all tokens and columns [begin, end), tile by tile.
// product(is_gate, tile, y) makes y [tokens, columns] of one of the two
// matrices; store(token, tile, values) takes a token's `columns` results.
template <typename Product, typename Store>
void GatedTiles(const kernels::KernelTable& kernels, int64_t begin, int64_t end,
                int64_t tokens, const Product& product, const Store& store) {
  float gate[kTileTokens * kTileColumns];
  float up[kTileTokens * kTileColumns];
  for (int64_t column = begin; column < end; column += kTileColumns) {
    for (int64_t token = 0; token < tokens; token += kTileTokens) {
      const Tile tile = {token, std::min(kTileTokens, tokens - token), column,
                         std::min(kTileColumns, end - column)};
      product(/*is_gate=*/true, tile, gate);
      product(/*is_gate=*/false, tile, up);
      kernels.silu_mul(gate, up, tile.tokens * tile.columns, gate);
      for (int64_t i = 0; i < tile.tokens; ++i) {
        store(token + i, tile, gate + i * tile.columns);
      }
    }
  }
}

}  // namespace

void ExpertInner(const kernels::KernelTable& kernels,
                 const model::ExpertWeights& weights, int64_t begin,
                 int64_t end, const float* x, int64_t x_stride, int64_t tokens,
                 float* inner, float* scratch) {
  const int64_t I = weights.gate_proj.rows;
  kernels.matmul(weights.gate_proj, begin, end, x, x_stride, tokens,
                 inner + begin, I);
  kernels.matmul(weights.up_proj, begin, end, x, x_stride, tokens,
                 scratch + begin, I);
  for (int64_t t = 0; t < tokens; ++t) {
    float* const gate = inner + t * I + begin;
    kernels.silu_mul(gate, scratch + t * I + begin, end - begin, gate);
  }
}

void ExpertOutput(const kernels::KernelTable& kernels,
                  const model::ExpertWeights& weights, int64_t begin,
                  int64_t end, const float* inner, int64_t tokens, float* y) {
  const int64_t H = weights.down_proj.rows;
  const int64_t I = weights.down_proj.cols;
  kernels.matmul(weights.down_proj, begin, end, inner, I, tokens, y + begin, H);
}

void Bf16ExpertInner(const kernels::KernelTable& kernels,
                     const model::ExpertWeights& weights, int64_t begin,
                     int64_t end, const uint16_t* x, int64_t x_stride,
                     int64_t tokens, uint16_t* inner) {
  const int64_t I = weights.gate_proj.rows;
  GatedTiles(
      kernels, begin, end, tokens,
      [&](bool is_gate, const Tile& tile, float* y) {
        kernels.bf16_matmul(is_gate ? weights.gate_proj : weights.up_proj,
                            tile.column, tile.column + tile.columns,
                            x + tile.token * x_stride, x_stride, tile.tokens, y,
                            tile.columns);
      },
      [&](int64_t token, const Tile& tile, const float* values) {
        kernels.round_to_bf16(values, tile.columns,
                              inner + token * I + tile.column);
      });
}

void Bf16ExpertOutput(const kernels::KernelTable& kernels,
                      const model::ExpertWeights& weights, int64_t begin,
                      int64_t end, const uint16_t* inner, int64_t tokens,
                      float* y) {
  kernels.bf16_matmul(weights.down_proj, begin, end, inner,
                      weights.down_proj.cols, tokens, y + begin,
                      weights.down_proj.rows);
}

void QuantizedExpertInner(const kernels::KernelTable& kernels,
                          const model::ExpertWeights& weights, int64_t begin,
                          int64_t end, const kernels::QuantizedRows& x,
                          int64_t tokens, QuantizedBuffer* inner,
                          int64_t inner_row) {
  GatedTiles(
      kernels, begin, end, tokens,
      [&](bool is_gate, const Tile& tile, float* y) {
        kernels.quantized_matmul(is_gate ? weights.gate_proj : weights.up_proj,
                                 tile.column, tile.column + tile.columns,
                                 RowsFrom(x, tile.token), tile.tokens, y,
                                 tile.columns);
      },
      [&](int64_t token, const Tile& tile, const float* values) {
        inner->Quantize(kernels, values, inner_row + token, tile.column,
                        tile.columns);
      });
}

void QuantizedExpertOutput(const kernels::KernelTable& kernels,
                           const model::ExpertWeights& weights, int64_t begin,
                           int64_t end, const kernels::QuantizedRows& inner,
                           int64_t tokens, float* y) {
  kernels.quantized_matmul(weights.down_proj, begin, end, inner, tokens,
                           y + begin, weights.down_proj.rows);
}

void ExpertFfn(const kernels::KernelTable& kernels,
               const model::ExpertWeights& weights, const float* x,
               int64_t tokens, float* y) {
  const int64_t I = weights.gate_proj.rows;
  const int64_t H = weights.gate_proj.cols;
  const kernels::RowFormat format = RowFormatOf(weights.gate_proj.dtype);
  if (format == kernels::RowFormat::kBF16) {
    std::vector<uint16_t> rows(tokens * H);
    std::vector<uint16_t> inner(tokens * I);
    kernels.round_to_bf16(x, tokens * H, rows.data());
    Bf16ExpertInner(kernels, weights, 0, I, rows.data(), H, tokens,
                    inner.data());
    Bf16ExpertOutput(kernels, weights, 0, H, inner.data(), tokens, y);
    return;
  }
  if (format == kernels::RowFormat::kF32) {
    std::vector<float> scratch(2 * tokens * I);
    ExpertInner(kernels, weights, 0, I, x, H, tokens, scratch.data(),
                scratch.data() + tokens * I);
    ExpertOutput(kernels, weights, 0, H, scratch.data(), tokens, y);
    return;
  }
  QuantizedBuffer rows(H);
  QuantizedBuffer inner(I);
  rows.Reserve(tokens);
  inner.Reserve(tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    rows.Quantize(kernels, x + t * H, t, 0, H);
  }
  QuantizedExpertInner(kernels, weights, 0, I, rows.Rows(0), tokens, &inner, 0);
  QuantizedExpertOutput(kernels, weights, 0, H, inner.Rows(0), tokens, y);
}

}  // namespace switchyard::experts
