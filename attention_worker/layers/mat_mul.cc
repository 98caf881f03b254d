#include "attention_worker/layers/mat_mul.h"

#include <algorithm>

#include "absl/container/inlined_vector.h"
#include "kernels/quantized.h"

namespace switchyard::attention_worker {
namespace {

using kernels::QuantizedRows;
using kernels::RowFormat;

// A product is cut into tiles of at most this many tokens and weight rows. At H
// = 2048, 64 tokens are 512 KiB of floats and 64 rows 256 KiB of bf16: a tile's
// inputs stay in a core's level-2 cache.
constexpr int64_t kTileTokens = 64;
constexpr int64_t kTileRows = 64;
// Quantised tokens that are multiplied by many rows of weights one after the
// other: 590 KiB at H = 2048 stay in that cache beside a panel of weights.
constexpr int64_t kQuantizedTileTokens = 256;
// As many row blocks for each thread are enough to share out evenly; then
// tokens need not be cut for it.
constexpr int64_t kRowBlocksPerThread = 8;
// Fewer than a vector's worth of rows would leave lanes empty, and quantised
// weights lie in panels of so many.
constexpr int64_t kMinTileRows = kernels::kPanelRows;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A job and its tiles: row block after row block, and token block after token
// block within it, so that a thread's weights stay where they are.
struct Plan {
  const MatMulJob* job;
  // The job's x as its weights take it, if that is not as floats.
  QuantizedRows quantized;
  const uint16_t* rounded;  // [tokens, cols]
  int64_t tile_tokens;
  int64_t tile_rows;
  int64_t token_tiles;
  int64_t first_tile;  // its number among all jobs' tiles
  int64_t end_tile;
};
using Plans = absl::InlinedVector<Plan, 4>;

Plan PlanJob(const MatMulJob& job, int64_t tokens, int num_threads,
             int64_t first_tile) {
  Plan plan{&job, {}, nullptr, 0, 0, 0, first_tile, 0};
  const bool quantized = IsQuantized(job.weight.dtype);
  plan.tile_tokens =
      std::min(tokens, quantized ? kQuantizedTileTokens : kTileTokens);
  const int64_t row_cost =
      std::max<int64_t>(1, job.weight.cols * plan.tile_tokens);
  plan.tile_rows =
      std::clamp(CeilDiv(kMinWork / row_cost, kMinTileRows) * kMinTileRows,
                 kMinTileRows, kTileRows);
  const int64_t row_tiles = CeilDiv(job.weight.rows, plan.tile_rows);
  if (quantized && row_tiles >= kRowBlocksPerThread * num_threads) {
    plan.tile_tokens = tokens;
  }
  plan.token_tiles = CeilDiv(tokens, plan.tile_tokens);
  plan.end_tile = first_tile + row_tiles * plan.token_tiles;
  return plan;
}

QuantizedRows Quantize(const LayerContext& context, const MatMulJob& job,
                       int64_t tokens) {
  const int64_t cols = job.weight.cols;
  const int64_t width = kernels::PaddedColumns(cols);
  const int64_t groups = kernels::NumGroups(cols);
  int8_t* const values = context.scratch->Bytes(tokens * width);
  float* const scales = context.scratch->Floats(tokens * groups);
  int32_t* const sums = context.scratch->Ints(tokens * groups);
  ForEach(context, tokens, cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      context.kernels->quantize_row(job.x + t * job.x_stride, cols,
                                    values + t * width, scales + t * groups,
                                    sums + t * groups);
    }
  });
  return {values, scales, sums, cols};
}

const uint16_t* Round(const LayerContext& context, const MatMulJob& job,
                      int64_t tokens) {
  const int64_t cols = job.weight.cols;
  auto* const rounded = reinterpret_cast<uint16_t*>(context.scratch->Bytes(
      tokens * cols * static_cast<int64_t>(sizeof(uint16_t))));
  ForEach(context, tokens, cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      context.kernels->round_to_bf16(job.x + t * job.x_stride, cols,
                                     rounded + t * cols);
    }
  });
  return rounded;
}

bool HaveTheSameInput(const MatMulJob& a, const MatMulJob& b) {
  return a.x == b.x && a.x_stride == b.x_stride &&
         a.weight.cols == b.weight.cols &&
         RowFormatOf(a.weight.dtype) == RowFormatOf(b.weight.dtype);
}

// Every job's x as its weights take it, the same x once.
void EncodeInputs(const LayerContext& context, int64_t tokens, Plans* plans) {
  for (size_t i = 0; i < plans->size(); ++i) {
    Plan& plan = (*plans)[i];
    const MatMulJob& job = *plan.job;
    const RowFormat format = RowFormatOf(job.weight.dtype);
    if (format == RowFormat::kF32) continue;
    size_t same = 0;
    while (!HaveTheSameInput(job, *(*plans)[same].job)) ++same;
    if (same < i) {
      plan.quantized = (*plans)[same].quantized;
      plan.rounded = (*plans)[same].rounded;
    } else if (format == RowFormat::kBF16) {
      plan.rounded = Round(context, job, tokens);
    } else {
      plan.quantized = Quantize(context, job, tokens);
    }
  }
}

// Rows [row, row_end) of a job's weights times tokens [token, token_end).
void Multiply(const kernels::KernelTable& kernels, const Plan& plan,
              int64_t row, int64_t row_end, int64_t token, int64_t token_end) {
  const MatMulJob& job = *plan.job;
  float* const y = job.y + token * job.y_stride + row;
  switch (RowFormatOf(job.weight.dtype)) {
    case RowFormat::kF32:
      kernels.matmul(job.weight, row, row_end, job.x + token * job.x_stride,
                     job.x_stride, token_end - token, y, job.y_stride);
      return;
    case RowFormat::kBF16:
      kernels.bf16_matmul(job.weight, row, row_end,
                          plan.rounded + token * job.weight.cols,
                          job.weight.cols, token_end - token, y, job.y_stride);
      return;
    case RowFormat::kI8Group32:
      break;
  }
  for (int64_t t = token; t < token_end; t += kQuantizedTileTokens) {
    kernels.quantized_matmul(job.weight, row, row_end,
                             RowsFrom(plan.quantized, t),
                             std::min(kQuantizedTileTokens, token_end - t),
                             y + (t - token) * job.y_stride, job.y_stride);
  }
}

// Tiles [begin, end) of a plan, counted from its own first.
void RunTiles(const kernels::KernelTable& kernels, const Plan& plan,
              int64_t begin, int64_t end, int64_t tokens) {
  // All tokens in one tile: row blocks that follow one another are one product.
  const int64_t step = plan.token_tiles == 1 ? end - begin : 1;
  for (int64_t tile = begin; tile < end; tile += step) {
    const int64_t row = tile / plan.token_tiles * plan.tile_rows;
    const int64_t token = tile % plan.token_tiles * plan.tile_tokens;
    Multiply(kernels, plan, row,
             std::min(row + plan.tile_rows * step, plan.job->weight.rows),
             token, std::min(token + plan.tile_tokens, tokens));
  }
}

}  // namespace

void MatMul(const LayerContext& context, absl::Span<const MatMulJob> jobs,
            int64_t tokens) {
  if (tokens == 0) return;
  const Scratch::Frame frame(context.scratch);
  Plans plans;
  int64_t num_tiles = 0;
  for (const MatMulJob& job : jobs) {
    plans.push_back(
        PlanJob(job, tokens, context.pool->num_threads(), num_tiles));
    num_tiles = plans.back().end_tile;
  }
  EncodeInputs(context, tokens, &plans);
  context.pool->ParallelFor(num_tiles, 1, [&](int64_t begin, int64_t end) {
    for (const Plan& plan : plans) {
      const int64_t first = std::max(begin, plan.first_tile);
      const int64_t last = std::min(end, plan.end_tile);
      if (first < last) {
        RunTiles(*context.kernels, plan, first - plan.first_tile,
                 last - plan.first_tile, tokens);
      }
    }
  });
}

}  // namespace switchyard::attention_worker
