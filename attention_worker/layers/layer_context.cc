#include "attention_worker/layers/layer_context.h"

#include <algorithm>

#include "absl/container/inlined_vector.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// Multiply-adds below which a piece of work is not split further: about ten
// microseconds, twice what waking a sleeping thread costs.
constexpr int64_t kMinWork = 64 * 1024;

// A matrix product is cut into tiles of at most this many tokens and weight
// rows: at H = 2048 the tokens are 512 KiB of floats and the weights 256 KiB of
// bf16, so that a tile's inputs stay in a core's level-2 cache.
constexpr int64_t kTileTokens = 64;
constexpr int64_t kTileRows = 64;
// Fewer than a vector's worth of rows would leave lanes empty.
constexpr int64_t kMinTileRows = 16;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Tiles of one job: row block after row block, and token block after token
// block within it, so that a thread's weights stay where they are.
struct Tiling {
  int64_t rows_per_tile = 0;
  int64_t token_tiles = 0;
  int64_t first_tile = 0;  // its number among all jobs' tiles
  int64_t end_tile = 0;
};

}  // namespace

void ForEach(const LayerContext& context, int64_t items, int64_t cost_per_item,
             absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
  const int64_t grain =
      std::max<int64_t>(1, kMinWork / std::max<int64_t>(1, cost_per_item));
  context.pool->ParallelFor(items, grain, body);
}

void MatMul(const LayerContext& context, absl::Span<const MatMulJob> jobs,
            int64_t tokens) {
  if (tokens == 0) return;
  const int64_t tile_tokens = std::min(tokens, kTileTokens);
  absl::InlinedVector<Tiling, 4> tilings;
  int64_t num_tiles = 0;
  for (const MatMulJob& job : jobs) {
    Tiling tiling;
    const int64_t row_cost =
        std::max<int64_t>(1, job.weight.cols * tile_tokens);
    tiling.rows_per_tile =
        std::clamp(CeilDiv(kMinWork / row_cost, kMinTileRows) * kMinTileRows,
                   kMinTileRows, kTileRows);
    tiling.token_tiles = CeilDiv(tokens, kTileTokens);
    tiling.first_tile = num_tiles;
    num_tiles +=
        CeilDiv(job.weight.rows, tiling.rows_per_tile) * tiling.token_tiles;
    tiling.end_tile = num_tiles;
    tilings.push_back(tiling);
  }
  const auto run = [&](int64_t begin, int64_t end) {
    size_t j = 0;
    for (int64_t tile = begin; tile < end; ++tile) {
      while (tile >= tilings[j].end_tile) ++j;
      const Tiling& tiling = tilings[j];
      const MatMulJob& job = jobs[j];
      const int64_t local = tile - tiling.first_tile;
      const int64_t row = local / tiling.token_tiles * tiling.rows_per_tile;
      const int64_t row_end =
          std::min(row + tiling.rows_per_tile, job.weight.rows);
      const int64_t token = local % tiling.token_tiles * kTileTokens;
      context.kernels->matmul(job.weight, row, row_end,
                              job.x + token * job.x_stride, job.x_stride,
                              std::min(kTileTokens, tokens - token),
                              job.y + token * job.y_stride + row, job.y_stride);
    }
  };
  context.pool->ParallelFor(num_tiles, 1, run);
}

void ZeroCentredRmsNorm(const LayerContext& context, const float* x,
                        absl::Span<const float> weight, int64_t rows,
                        float* y) {
  const int64_t n = static_cast<int64_t>(weight.size());
  const float eps = static_cast<float>(context.config->rms_norm_eps);
  ForEach(context, rows, 2 * n, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      context.kernels->rms_norm(x + t * n, weight.data(), /*offset=*/1.0f, eps,
                                n, y + t * n);
    }
  });
}

void AddRows(const LayerContext& context, const float* y, int64_t rows,
             int64_t n, float* x) {
  ForEach(context, rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * n; i < end * n; ++i) x[i] += y[i];
  });
}

}  // namespace switchyard::attention_worker
