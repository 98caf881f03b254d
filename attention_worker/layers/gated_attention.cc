#include "attention_worker/layers/gated_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "attention_worker/layers/mat_mul.h"

namespace switchyard::attention_worker {
namespace {

// Queries that go through the cache together: a block of keys that is in a
// core's first-level cache serves all of them.
constexpr int64_t kTileTokens = 8;
// Keys of one piece of work: a page's.
constexpr int64_t kKeyBlock = kPageTokens;
// Columns of values of one piece of work.
constexpr int64_t kValueColumns = 64;
// Scores that are in memory at a time (16 MiB); one token's may be more.
constexpr int64_t kMaxScores = int64_t{1} << 22;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Up to kTileTokens consecutive tokens of one sequence.
struct Tile {
  const LayerSequence* sequence = nullptr;
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t first_position = 0;
  // Keys of the tile's last token; token i sees num_keys - num_rows + 1 + i.
  int64_t num_keys() const { return first_position + num_rows; }
  int64_t KeysOf(int64_t token) const { return first_position + token + 1; }
};

std::vector<const LayerSequence*> SequenceOfRow(
    absl::Span<const LayerSequence> sequences, int64_t rows) {
  std::vector<const LayerSequence*> result(rows);
  for (const LayerSequence& sequence : sequences) {
    std::fill_n(result.begin() + sequence.first_row, sequence.num_rows,
                &sequence);
  }
  return result;
}

std::vector<Tile> MakeTiles(absl::Span<const LayerSequence> sequences,
                            int64_t heads) {
  std::vector<Tile> tiles;
  for (const LayerSequence& sequence : sequences) {
    int64_t tokens = 0;
    for (int64_t begin = 0; begin < sequence.num_rows; begin += tokens) {
      const int64_t most =
          kMaxScores / (heads * (sequence.first_position + sequence.num_rows));
      tokens = std::min(std::clamp<int64_t>(most, 1, kTileTokens),
                        sequence.num_rows - begin);
      tiles.push_back({&sequence, sequence.first_row + begin, tokens,
                       sequence.first_position + begin});
    }
  }
  return tiles;
}

// One call's softmax(q k^T / sqrt(D)) v. Three loops over all tiles of a group,
// each in parallel: scores by key block, softmax by token and head, sums over
// values by column block. A score is one dot product; a softmax and a sum over
// values run over the keys in their order, by one thread. So the bits depend on
// a token's own query and prefix only.
class Attention {
 public:
  Attention(const LayerContext& context, const float* queries, float* outputs)
      : context_(context),
        kernels_(*context.kernels),
        heads_(context.config->num_attention_heads),
        kv_heads_(context.config->num_key_value_heads),
        group_(heads_ / kv_heads_),
        d_(context.config->head_dim),
        queries_(queries),
        outputs_(outputs) {}

  void Run(absl::Span<const LayerSequence> sequences) {
    const std::vector<Tile> tiles = MakeTiles(sequences, heads_);
    size_t begin = 0;
    while (begin < tiles.size()) {
      size_t end = begin;
      int64_t scores = 0;
      while (end < tiles.size() &&
             (end == begin || scores + ScoresOf(tiles[end]) <= kMaxScores)) {
        scores += ScoresOf(tiles[end++]);
      }
      RunTiles(absl::MakeConstSpan(tiles).subspan(begin, end - begin), scores);
      begin = end;
    }
  }

 private:
  // One tile and KV head's block of keys, or of value columns.
  struct Piece {
    int32_t tile;
    int32_t kv_head;
    int64_t begin;
    int64_t end;
  };

  int64_t ScoresOf(const Tile& tile) const {
    return heads_ * tile.num_rows * tile.num_keys();
  }

  // Scores of the tile's token `token` for the query heads of kv_head:
  // [group_, num_keys], of which the first KeysOf(token) columns count.
  template <typename Float>
  Float* Scores(const Tile& tile, Float* scores, int64_t kv_head,
                int64_t token) const {
    return scores +
           (kv_head * tile.num_rows + token) * group_ * tile.num_keys();
  }
  // Of that token's [group_, D] in queries_ and outputs_.
  int64_t Offset(const Tile& tile, int64_t kv_head, int64_t token) const {
    return ((tile.first_row + token) * heads_ + kv_head * group_) * d_;
  }
  const float* Query(const Tile& tile, int64_t kv_head, int64_t token) const {
    return queries_ + Offset(tile, kv_head, token);
  }

  void RunTiles(absl::Span<const Tile> tiles, int64_t num_scores) {
    const Scratch::Frame frame(context_.scratch);
    float* const scores = context_.scratch->Floats(num_scores);
    std::vector<float*> scores_of(tiles.size());
    std::vector<Piece> key_pieces, column_pieces;
    int64_t offset = 0, rows = 0, most_keys = 0;
    for (size_t i = 0; i < tiles.size(); ++i) {
      const Tile& tile = tiles[i];
      scores_of[i] = scores + offset;
      offset += ScoresOf(tile);
      rows += tile.num_rows;
      most_keys = std::max(most_keys, tile.num_keys());
      for (int32_t h = 0; h < kv_heads_; ++h) {
        for (int64_t j = 0; j < tile.num_keys(); j += kKeyBlock) {
          key_pieces.push_back({static_cast<int32_t>(i), h, j,
                                std::min(j + kKeyBlock, tile.num_keys())});
        }
        for (int64_t c = 0; c < d_; c += kValueColumns) {
          column_pieces.push_back(
              {static_cast<int32_t>(i), h, c, std::min(c + kValueColumns, d_)});
        }
      }
    }
    const int64_t tile_queries = CeilDiv(rows, tiles.size()) * group_;
    ForEach(context_, key_pieces.size(), kKeyBlock * tile_queries * d_,
            [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const Piece& piece = key_pieces[i];
                ScoreKeys(tiles[piece.tile], piece, scores_of[piece.tile]);
              }
            });
    float* const denominators = context_.scratch->Floats(rows * heads_);
    std::vector<int64_t> first_denominator(tiles.size());
    for (size_t i = 1; i < tiles.size(); ++i) {
      first_denominator[i] =
          first_denominator[i - 1] + tiles[i - 1].num_rows * heads_;
    }
    // Rows of the group, one after another: their tile, and which of its
    // tokens.
    std::vector<std::pair<size_t, int64_t>> token_of_row;
    for (size_t i = 0; i < tiles.size(); ++i) {
      for (int64_t t = 0; t < tiles[i].num_rows; ++t) {
        token_of_row.emplace_back(i, t);
      }
    }
    // An exponential costs about ten multiply-adds.
    ForEach(context_, rows * heads_, 10 * most_keys,
            [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const auto [tile, token] = token_of_row[i / heads_];
                denominators[i] =
                    Softmax(tiles[tile], token, i % heads_, scores_of[tile]);
              }
            });
    ForEach(context_, column_pieces.size(),
            most_keys * tile_queries * kValueColumns,
            [&](int64_t begin, int64_t end) {
              std::vector<float> sums(kTileTokens * group_ * kValueColumns);
              for (int64_t i = begin; i < end; ++i) {
                const Piece& piece = column_pieces[i];
                SumValues(tiles[piece.tile], piece, scores_of[piece.tile],
                          denominators + first_denominator[piece.tile],
                          sums.data());
              }
            });
  }

  void ScoreKeys(const Tile& tile, const Piece& piece, float* scores) const {
    const float scale = 1.0f / std::sqrt(static_cast<float>(d_));
    const int64_t kv_width = kv_heads_ * d_;
    const float* const keys = tile.sequence->KeysAt(piece.begin, kv_width) +
                              int64_t{piece.kv_head} * d_;
    for (int64_t t = 0; t < tile.num_rows; ++t) {
      const int64_t n = std::min(piece.end, tile.KeysOf(t)) - piece.begin;
      if (n <= 0) continue;  // the block is this token's future
      kernels_.attention_scores(
          Query(tile, piece.kv_head, t), group_, keys, kv_width, n, d_, scale,
          Scores(tile, scores, piece.kv_head, t) + piece.begin,
          tile.num_keys());
    }
  }

  // Scores to exponentials, in place; returns their sum.
  float Softmax(const Tile& tile, int64_t token, int64_t head,
                float* scores) const {
    return kernels_.exp_sub_max(Scores(tile, scores, head / group_, token) +
                                    head % group_ * tile.num_keys(),
                                tile.KeysOf(token));
  }

  // `sums` is scratch of the caller: [kTileTokens, group_, kValueColumns].
  void SumValues(const Tile& tile, const Piece& piece, const float* scores,
                 const float* denominators, float* sums) const {
    const int64_t kv_width = kv_heads_ * d_;
    const int64_t columns = piece.end - piece.begin;
    std::fill_n(sums, tile.num_rows * group_ * columns, 0.0f);
    for (int64_t j = 0; j < tile.num_keys(); j += kKeyBlock) {
      const float* const values = tile.sequence->ValuesAt(j, kv_width) +
                                  int64_t{piece.kv_head} * d_ + piece.begin;
      for (int64_t t = 0; t < tile.num_rows; ++t) {
        const int64_t n = std::min(kKeyBlock, tile.KeysOf(t) - j);
        if (n <= 0) continue;
        kernels_.attention_values(Scores(tile, scores, piece.kv_head, t) + j,
                                  tile.num_keys(), group_, values, kv_width, n,
                                  columns, sums + t * group_ * columns);
      }
    }
    for (int64_t t = 0; t < tile.num_rows; ++t) {
      for (int64_t g = 0; g < group_; ++g) {
        const float scale =
            1.0f / denominators[t * heads_ + piece.kv_head * group_ + g];
        const float* const sum = sums + (t * group_ + g) * columns;
        float* const out =
            outputs_ + piece.begin + Offset(tile, piece.kv_head, t) + g * d_;
        for (int64_t c = 0; c < columns; ++c) out[c] = sum[c] * scale;
      }
    }
  }

  const LayerContext& context_;
  const kernels::KernelTable& kernels_;
  const int64_t heads_;
  const int64_t kv_heads_;
  const int64_t group_;  // query heads of one KV head
  const int64_t d_;
  const float* const queries_;  // [rows, heads, D]
  float* const outputs_;        // [rows, heads, D]
};

}  // namespace

void GatedAttention(const LayerContext& context,
                    const GatedAttentionWeights& weights, const RopeTable& rope,
                    absl::Span<const LayerSequence> sequences, int64_t rows,
                    const float* x, float* y) {
  const model::ModelConfig& config = *context.config;
  const kernels::KernelTable& kernels = *context.kernels;
  const int64_t hidden = config.hidden_size;
  const int64_t heads = config.num_attention_heads;
  const int64_t kv_heads = config.num_key_value_heads;
  const int64_t d = config.head_dim;
  const int64_t kv_width = kv_heads * d;
  const float eps = static_cast<float>(config.rms_norm_eps);

  const Scratch::Frame frame(context.scratch);
  float* const qg = context.scratch->Floats(rows * heads * 2 * d);
  float* const k = context.scratch->Floats(rows * kv_width);
  float* const v = context.scratch->Floats(rows * kv_width);
  const MatMulJob projections[] = {
      {weights.q_proj, x, hidden, qg, heads * 2 * d},
      {weights.k_proj, x, hidden, k, kv_width},
      {weights.v_proj, x, hidden, v, kv_width}};
  {
    const TimedPart timed(context.timer, StepPart::kProjections);
    MatMul(context, projections, rows);
  }

  float* const q = context.scratch->Floats(rows * heads * d);
  float* const gate = context.scratch->Floats(rows * heads * d);
  const std::vector<const LayerSequence*> sequence_of_row =
      SequenceOfRow(sequences, rows);
  ForEach(
      context, rows, 8 * (heads + kv_heads) * d,
      [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          for (int64_t h = 0; h < heads; ++h) {
            const int64_t out = (row * heads + h) * d;
            const float* const in = qg + 2 * out;
            kernels.rms_norm(in, weights.q_norm.data(), /*offset=*/1.0f, eps, d,
                             q + out);
            kernels.rope(q + out, rope.cos(row), rope.sin(row),
                         rope.half_dim());
            std::memcpy(gate + out, in + d, d * sizeof(float));
          }
          const LayerSequence& sequence = *sequence_of_row[row];
          const int64_t position =
              sequence.first_position + row - sequence.first_row;
          float* const keys = sequence.KeysAt(position, kv_width);
          for (int64_t h = 0; h < kv_heads; ++h) {
            float* const key = keys + h * d;
            kernels.rms_norm(k + row * kv_width + h * d, weights.k_norm.data(),
                             /*offset=*/1.0f, eps, d, key);
            kernels.rope(key, rope.cos(row), rope.sin(row), rope.half_dim());
          }
          std::memcpy(sequence.ValuesAt(position, kv_width), v + row * kv_width,
                      kv_width * sizeof(float));
        }
      });

  float* const mixed = context.scratch->Floats(rows * heads * d);
  Attention(context, q, mixed).Run(sequences);
  ForEach(context, rows, 10 * heads * d, [&](int64_t begin, int64_t end) {
    kernels.sigmoid_mul(mixed + begin * heads * d, gate + begin * heads * d,
                        (end - begin) * heads * d, mixed + begin * heads * d);
  });
  const MatMulJob output[] = {{weights.o_proj, mixed, heads * d, y, hidden}};
  const TimedPart timed(context.timer, StepPart::kProjections);
  MatMul(context, output, rows);
}

}  // namespace switchyard::attention_worker
