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
// Columns of values of one piece of work, for tiles of several tokens.
constexpr int64_t kValueColumns = 64;
// A token's weighted values are added up within spans of so many keys, and then
// span after span: so that the spans of a long context can be shared out, and
// always in this order, so that the sum's bits do not tell how they were.
constexpr int64_t kSpanKeys = 1024;
static_assert(kSpanKeys % kKeyBlock == 0);
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
// values by column block or by span of keys. A score is one dot product; a
// softmax and a span's sum run over the keys in their order, by one thread, and
// spans are added in their order. So the bits depend on a token's own query and
// prefix only.
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
      RunTiles(absl::MakeConstSpan(tiles).subspan(begin, end - begin));
      begin = end;
    }
  }

 private:
  // A tile of the group in work, and its arrays in scratch.
  struct TileWork {
    Tile tile;
    float* scores;        // [KV heads, tokens, group_, num_keys]
    float* denominators;  // [tokens, heads]
    float* spans;         // [KV heads, spans, group_, D] if split by spans
  };
  // One tile and KV head's block of keys, of value columns, or one span.
  struct Piece {
    const TileWork* work;
    int64_t kv_head;
    int64_t begin;
    int64_t end;
  };

  int64_t ScoresOf(const Tile& tile) const {
    return heads_ * tile.num_rows * tile.num_keys();
  }
  static int64_t SpansOf(const Tile& tile) {
    return CeilDiv(tile.num_keys(), kSpanKeys);
  }
  // One token of a long context: its spans are what can be shared out. Several
  // tokens: a thread that has all spans of some columns need not store sums.
  static bool SplitsBySpans(const Tile& tile) {
    return tile.num_rows == 1 && SpansOf(tile) > 1;
  }

  // Scores of the tile's token `token` for the query heads of kv_head:
  // [group_, num_keys], of which the first KeysOf(token) columns count.
  float* Scores(const TileWork& work, int64_t kv_head, int64_t token) const {
    return work.scores + (kv_head * work.tile.num_rows + token) * group_ *
                             work.tile.num_keys();
  }
  // Of that token's [group_, D] in queries_ and outputs_.
  int64_t Offset(const Tile& tile, int64_t kv_head, int64_t token) const {
    return ((tile.first_row + token) * heads_ + kv_head * group_) * d_;
  }

  void RunTiles(absl::Span<const Tile> tiles) {
    const Scratch::Frame frame(context_.scratch);
    std::vector<TileWork> works;
    int64_t rows = 0, most_keys = 0;
    for (const Tile& tile : tiles) {
      TileWork work{tile, context_.scratch->Floats(ScoresOf(tile)),
                    context_.scratch->Floats(tile.num_rows * heads_), nullptr};
      if (SplitsBySpans(tile)) {
        work.spans = context_.scratch->Floats(SpansOf(tile) * heads_ * d_);
      }
      works.push_back(work);
      rows += tile.num_rows;
      most_keys = std::max(most_keys, tile.num_keys());
    }
    const int64_t tile_queries = CeilDiv(rows, tiles.size()) * group_;
    ScoreAllKeys(works, kKeyBlock * tile_queries * d_);
    SoftmaxAll(works, rows, most_keys);
    SumAllValues(works, tile_queries, most_keys);
  }

  void ScoreAllKeys(const std::vector<TileWork>& works, int64_t cost) const {
    std::vector<Piece> pieces;
    for (const TileWork& work : works) {
      const int64_t keys = work.tile.num_keys();
      for (int64_t h = 0; h < kv_heads_; ++h) {
        for (int64_t j = 0; j < keys; j += kKeyBlock) {
          pieces.push_back({&work, h, j, std::min(j + kKeyBlock, keys)});
        }
      }
    }
    ForEach(context_, pieces.size(), cost, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ScoreKeys(pieces[i]);
    });
  }

  void ScoreKeys(const Piece& piece) const {
    const Tile& tile = piece.work->tile;
    const float scale = 1.0f / std::sqrt(static_cast<float>(d_));
    const int64_t kv_width = kv_heads_ * d_;
    const float* const keys =
        tile.sequence->KeysAt(piece.begin, kv_width) + piece.kv_head * d_;
    for (int64_t t = 0; t < tile.num_rows; ++t) {
      const int64_t n = std::min(piece.end, tile.KeysOf(t)) - piece.begin;
      if (n <= 0) continue;  // the block is this token's future
      kernels_.attention_scores(
          queries_ + Offset(tile, piece.kv_head, t), group_, keys, kv_width, n,
          d_, scale, Scores(*piece.work, piece.kv_head, t) + piece.begin,
          tile.num_keys());
    }
  }

  // Scores to exponentials, in place, and their sums.
  void SoftmaxAll(const std::vector<TileWork>& works, int64_t rows,
                  int64_t most_keys) const {
    std::vector<std::pair<const TileWork*, int64_t>> token_of_row;
    for (const TileWork& work : works) {
      for (int64_t t = 0; t < work.tile.num_rows; ++t) {
        token_of_row.emplace_back(&work, t);
      }
    }
    // An exponential costs about ten multiply-adds.
    ForEach(context_, rows * heads_, 10 * most_keys,
            [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const auto [work, token] = token_of_row[i / heads_];
                const int64_t head = i % heads_;
                work->denominators[token * heads_ + head] =
                    kernels_.exp_sub_max(
                        Scores(*work, head / group_, token) +
                            head % group_ * work->tile.num_keys(),
                        work->tile.KeysOf(token));
              }
            });
  }

  void SumAllValues(const std::vector<TileWork>& works, int64_t tile_queries,
                    int64_t most_keys) const {
    std::vector<Piece> columns, spans, heads;
    for (const TileWork& work : works) {
      for (int64_t h = 0; h < kv_heads_; ++h) {
        if (work.spans == nullptr) {
          for (int64_t c = 0; c < d_; c += kValueColumns) {
            columns.push_back({&work, h, c, std::min(c + kValueColumns, d_)});
          }
          continue;
        }
        for (int64_t i = 0; i < SpansOf(work.tile); ++i) {
          spans.push_back({&work, h, i, i + 1});
        }
        heads.push_back({&work, h, 0, d_});
      }
    }
    ForEach(context_, columns.size(), most_keys * tile_queries * kValueColumns,
            [&](int64_t begin, int64_t end) {
              std::vector<float> sums(2 * kTileTokens * group_ * kValueColumns);
              for (int64_t i = begin; i < end; ++i) {
                SumColumns(columns[i], sums.data());
              }
            });
    ForEach(context_, spans.size(), kSpanKeys * group_ * d_,
            [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const Piece& piece = spans[i];
                SumSpan({piece.work, piece.kv_head, 0, d_}, piece.begin,
                        Span(piece, piece.begin));
              }
            });
    for (const Piece& piece : heads) {
      float* const sums = Span(piece, 0);
      for (int64_t i = 1; i < SpansOf(piece.work->tile); ++i) {
        AddTo(Span(piece, i), group_ * d_, sums);
      }
      Divide(piece, sums);
    }
  }

  // A KV head's sums of one span: [group_, D].
  float* Span(const Piece& piece, int64_t span) const {
    return piece.work->spans +
           (piece.kv_head * SpansOf(piece.work->tile) + span) * group_ * d_;
  }

  static void AddTo(const float* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[i];
  }

  // Columns [begin, end) of the piece's tokens. `sums` is scratch of the
  // caller: twice [kTileTokens, group_, kValueColumns].
  void SumColumns(const Piece& piece, float* sums) const {
    const Tile& tile = piece.work->tile;
    const int64_t floats = group_ * (piece.end - piece.begin);
    float* const next = sums + kTileTokens * group_ * kValueColumns;
    SumSpan(piece, 0, sums);
    for (int64_t i = 1; i < SpansOf(tile); ++i) {
      SumSpan(piece, i, next);
      for (int64_t t = 0; t < tile.num_rows; ++t) {
        // A token that sees nothing of the span has no sum of it to add.
        if (tile.KeysOf(t) <= i * kSpanKeys) continue;
        AddTo(next + t * floats, floats, sums + t * floats);
      }
    }
    Divide(piece, sums);
  }

  // Columns [begin, end) of the piece's tokens over one span of keys: sums
  // [tokens, group_, columns].
  void SumSpan(const Piece& piece, int64_t span, float* sums) const {
    const Tile& tile = piece.work->tile;
    const int64_t kv_width = kv_heads_ * d_;
    const int64_t columns = piece.end - piece.begin;
    std::fill_n(sums, tile.num_rows * group_ * columns, 0.0f);
    const int64_t last = std::min((span + 1) * kSpanKeys, tile.num_keys());
    for (int64_t j = span * kSpanKeys; j < last; j += kKeyBlock) {
      const float* const values = tile.sequence->ValuesAt(j, kv_width) +
                                  piece.kv_head * d_ + piece.begin;
      for (int64_t t = 0; t < tile.num_rows; ++t) {
        const int64_t n = std::min(kKeyBlock, tile.KeysOf(t) - j);
        if (n <= 0) continue;
        kernels_.attention_values(Scores(*piece.work, piece.kv_head, t) + j,
                                  tile.num_keys(), group_, values, kv_width, n,
                                  columns, sums + t * group_ * columns);
      }
    }
  }

  // sums / denominators to the outputs.
  void Divide(const Piece& piece, const float* sums) const {
    const Tile& tile = piece.work->tile;
    const int64_t columns = piece.end - piece.begin;
    for (int64_t t = 0; t < tile.num_rows; ++t) {
      for (int64_t g = 0; g < group_; ++g) {
        const float scale =
            1.0f /
            piece.work->denominators[t * heads_ + piece.kv_head * group_ + g];
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
