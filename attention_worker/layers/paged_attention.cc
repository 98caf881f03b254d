#include "attention_worker/layers/paged_attention.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "base/check.h"
#include "base/mutex.h"
#include "kernels/math.h"

namespace switchyard::attention_worker {
namespace {

// Positions at whose multiples spans begin.
constexpr int64_t kSpanKeys = 512;
static_assert(kSpanKeys % kPageTokens == 0);
// Tokens that go through the cache together: their queries stay in a core's
// second-level cache, and so does a page that they read one after another.
constexpr int64_t kTileTokens = 8;
// So a tile's tokens have their last keys in the same page and span.
static_assert(kPageTokens % kTileTokens == 0);
// Sums of spans that are in memory at a time (4 MiB); one token's may be more.
constexpr int64_t kMaxPartialFloats = int64_t{1} << 20;
// With fewer pieces of work a thread, tiles of several tokens are cut too.
constexpr int64_t kPiecesPerThread = 4;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Up to kTileTokens consecutive tokens of one sequence, which do not cross a
// multiple of that.
struct Tile {
  const LayerSequence* sequence = nullptr;
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t first_position = 0;

  // Keys of token i; of the last token.
  int64_t KeysOf(int64_t token) const { return first_position + token + 1; }
  int64_t num_keys() const { return KeysOf(num_rows - 1); }
  int64_t num_spans() const { return CeilDiv(num_keys(), kSpanKeys); }
};

std::vector<Tile> MakeTiles(absl::Span<const LayerSequence> sequences) {
  std::vector<Tile> tiles;
  for (const LayerSequence& sequence : sequences) {
    int64_t tokens = 0;
    for (int64_t begin = 0; begin < sequence.num_rows; begin += tokens) {
      const int64_t position = sequence.first_position + begin;
      tokens = std::min(kTileTokens - position % kTileTokens,
                        sequence.num_rows - begin);
      tiles.push_back(
          {&sequence, sequence.first_row + begin, tokens, position});
    }
  }
  return tiles;
}

// Arrays of the same size, one for each thread that may want one at a time.
class Workspaces {
 public:
  Workspaces(Scratch* scratch, int threads, int64_t floats) {
    for (int i = 0; i < threads; ++i) free_.push_back(scratch->Floats(floats));
  }
  float* Take() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    SY_CHECK(!free_.empty());
    float* const taken = free_.back();
    free_.pop_back();
    return taken;
  }
  void Give(float* workspace) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    free_.push_back(workspace);
  }

 private:
  Mutex mutex_;
  std::vector<float*> free_ ABSL_GUARDED_BY(mutex_);
};

class Attention {
 public:
  Attention(const LayerContext& context, int64_t rows, const float* queries,
            float* outputs)
      : context_(context),
        kernels_(*context.kernels),
        heads_(context.config->num_attention_heads),
        kv_heads_(context.config->num_key_value_heads),
        group_(heads_ / kv_heads_),
        d_(context.config->head_dim),
        scale_(1.0f / std::sqrt(static_cast<float>(d_))),
        rows_(rows),
        queries_(queries),
        outputs_(outputs) {}

  void Run(absl::Span<const LayerSequence> sequences) {
    const std::vector<Tile> tiles = MakeTiles(sequences);
    const bool few =
        static_cast<int64_t>(tiles.size()) * kv_heads_ <
        kPiecesPerThread * static_cast<int64_t>(context_.pool->num_threads());
    size_t begin = 0;
    while (begin < tiles.size()) {
      // Tiles whose sums fit in memory together.
      std::vector<Job> jobs;
      int64_t partials = 0;
      size_t end = begin;
      for (; end < tiles.size(); ++end) {
        const Tile& tile = tiles[end];
        const bool split = tile.num_spans() > 1 && (few || tile.num_rows == 1);
        const int64_t floats =
            split ? kv_heads_ * tile.num_spans() * SumsFloats(tile) : 0;
        if (end > begin && partials + floats > kMaxPartialFloats) break;
        partials += floats;
        for (int64_t h = 0; h < kv_heads_; ++h) {
          jobs.push_back({&tile, h, split, nullptr});
        }
      }
      RunJobs(&jobs);
      begin = end;
    }
  }

 private:
  // What is known of some queries after some keys: their greatest scores and
  // sums of exponentials [queries], and weighted sums of values [queries, D].
  struct Sums {
    float* max;
    float* total;
    float* values;
  };
  // One tile and KV head.
  struct Job {
    const Tile* tile;
    int64_t kv_head;
    bool split;       // its spans may be computed by different threads
    float* partials;  // then [spans, SumsFloats]
  };
  // A job, or one of its spans.
  struct Piece {
    const Job* job;
    int64_t span;  // -1: all of them
  };

  int64_t QueriesOf(const Tile& tile) const { return tile.num_rows * group_; }
  int64_t SumsFloats(const Tile& tile) const {
    return QueriesOf(tile) * (d_ + 2);
  }
  Sums SumsAt(float* floats, const Tile& tile) const {
    const int64_t queries = QueriesOf(tile);
    return {floats + queries * d_, floats + queries * (d_ + 1), floats};
  }

  void RunJobs(std::vector<Job>* jobs) {
    const Scratch::Frame frame(context_.scratch);
    std::vector<Piece> pieces;
    std::vector<const Job*> split;
    int64_t most_queries = 0, cost = 0;
    for (Job& job : *jobs) {
      const Tile& tile = *job.tile;
      most_queries = std::max(most_queries, QueriesOf(tile));
      cost += 2 * QueriesOf(tile) * tile.num_keys() * d_;
      if (!job.split) {
        pieces.push_back({&job, -1});
        continue;
      }
      job.partials =
          context_.scratch->Floats(tile.num_spans() * SumsFloats(tile));
      split.push_back(&job);
      for (int64_t span = 0; span < tile.num_spans(); ++span) {
        pieces.push_back({&job, span});
      }
    }
    Workspaces workspaces(context_.scratch, context_.pool->num_threads(),
                          most_queries * (kSpanKeys + 2 * (d_ + 2)));
    const auto num_pieces = static_cast<int64_t>(pieces.size());
    ForEach(context_, num_pieces, cost / num_pieces,
            [&](int64_t begin, int64_t end) {
              float* const workspace = workspaces.Take();
              for (int64_t i = begin; i < end; ++i) {
                Compute(pieces[i], workspace,
                        workspace + most_queries * kSpanKeys);
              }
              workspaces.Give(workspace);
            });
    if (split.empty()) return;
    const auto num_split = static_cast<int64_t>(split.size());
    ForEach(context_, num_split, cost / (2 * kSpanKeys) / num_split,
            [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) FoldSpans(*split[i]);
            });
  }

  // `scores` is scratch: [queries, kSpanKeys]; `sums`: twice SumsFloats.
  void Compute(const Piece& piece, float* scores, float* sums) const {
    const Job& job = *piece.job;
    const Tile& tile = *job.tile;
    if (piece.span >= 0) {
      ComputeSpan(job, piece.span, scores,
                  SumsAt(job.partials + piece.span * SumsFloats(tile), tile));
      return;
    }
    Sums all = SumsAt(sums, tile);
    Sums next = SumsAt(sums + SumsFloats(tile), tile);
    ComputeSpan(job, 0, scores, all);
    for (int64_t span = 1; span < tile.num_spans(); ++span) {
      ComputeSpan(job, span, scores, next);
      Fold(QueriesOf(tile), next, all);
    }
    Finish(job, all);
  }

  void FoldSpans(const Job& job) const {
    const Tile& tile = *job.tile;
    const Sums all = SumsAt(job.partials, tile);
    for (int64_t span = 1; span < tile.num_spans(); ++span) {
      Fold(QueriesOf(tile),
           SumsAt(job.partials + span * SumsFloats(tile), tile), all);
    }
    Finish(job, all);
  }

  // Adds those of later keys, which are overwritten, to `all`.
  void Fold(int64_t queries, const Sums& later, const Sums& all) const {
    for (int64_t i = 0; i < queries; ++i) {
      float* const from = later.values + i * d_;
      float* const to = all.values + i * d_;
      if (later.max[i] > all.max[i]) {
        const float factor = kernels::Exp(all.max[i] - later.max[i]);
        kernels_.axpy(factor, all.total + i, later.total + i, 1);
        kernels_.axpy(factor, to, from, d_);
        all.max[i] = later.max[i];
        all.total[i] = later.total[i];
        std::copy_n(from, d_, to);
      } else {
        const float factor = kernels::Exp(later.max[i] - all.max[i]);
        kernels_.axpy(factor, later.total + i, all.total + i, 1);
        kernels_.axpy(factor, from, to, d_);
      }
    }
  }

  // Sums over one span of keys for all of the tile's tokens of one KV head.
  void ComputeSpan(const Job& job, int64_t span, float* scores,
                   const Sums& sums) const {
    const Tile& tile = *job.tile;
    const int64_t begin = span * kSpanKeys;
    const int64_t end = std::min(begin + kSpanKeys, tile.num_keys());
    ScoreKeys(job, begin, end, scores);
    for (int64_t t = 0; t < tile.num_rows; ++t) {
      for (int64_t i = t * group_; i < (t + 1) * group_; ++i) {
        sums.max[i] = kernels_.exp_sub_max(
            scores + i * kSpanKeys, std::min(tile.KeysOf(t), end) - begin,
            sums.total + i);
      }
    }
    SumValues(job, begin, end, scores, sums.values);
  }

  // Every token's scores with keys [begin, end), a token's future included:
  // nobody reads those.
  void ScoreKeys(const Job& job, int64_t begin, int64_t end,
                 float* scores) const {
    const Tile& tile = *job.tile;
    const KvLayer& kv = tile.sequence->kv;
    const float* const q =
        queries_ + (job.kv_head * rows_ + tile.first_row) * group_ * d_;
    for (int64_t j = begin; j < end; j += kPageTokens) {
      const kernels::KvRows keys = {
          .data = kv.KeyAt(j, job.kv_head),
          .dtype = kv.layout.dtype,
          .next = j + kPageTokens < end ? kv.KeyAt(j + kPageTokens, job.kv_head)
                                        : kv.ValueAt(begin, job.kv_head)};
      kernels_.attention_scores(q, QueriesOf(tile), keys,
                                std::min(kPageTokens, end - j), d_, scale_,
                                scores + (j - begin), kSpanKeys);
    }
  }

  void SumValues(const Job& job, int64_t begin, int64_t end,
                 const float* weights, float* sums) const {
    const Tile& tile = *job.tile;
    const KvLayer& kv = tile.sequence->kv;
    std::fill_n(sums, QueriesOf(tile) * d_, 0.0f);
    // Keys that all tokens see, and then those that only the later ones do:
    // fewer than kTileTokens, all in one page.
    const int64_t common = std::min(end, tile.KeysOf(0));
    for (int64_t j = begin; j < common; j += kPageTokens) {
      const kernels::KvRows values = {
          .data = kv.ValueAt(j, job.kv_head),
          .dtype = kv.layout.dtype,
          .next = NextAfterValues(tile, job.kv_head, j + kPageTokens, end)};
      kernels_.attention_values(weights + (j - begin), kSpanKeys,
                                QueriesOf(tile), values,
                                std::min(kPageTokens, common - j), d_, sums);
    }
    for (int64_t t = 1; t < tile.num_rows; ++t) {
      const int64_t own = std::min(end, tile.KeysOf(t)) - common;
      if (own <= 0) break;  // of this span all see all
      const kernels::KvRows values = {.data = kv.ValueAt(common, job.kv_head),
                                      .dtype = kv.layout.dtype};
      kernels_.attention_values(
          weights + t * group_ * kSpanKeys + (common - begin), kSpanKeys,
          group_, values, own, d_, sums + t * group_ * d_);
    }
  }

  // What is read after the values before position `j` of a span that ends at
  // `end`: more of its values, or the next span's keys.
  const void* NextAfterValues(const Tile& tile, int64_t kv_head, int64_t j,
                              int64_t end) const {
    const KvLayer& kv = tile.sequence->kv;
    if (j < end) return kv.ValueAt(j, kv_head);
    return end < tile.num_keys() ? kv.KeyAt(end, kv_head) : nullptr;
  }

  // o * (1 / l) to the outputs.
  void Finish(const Job& job, const Sums& sums) const {
    const Tile& tile = *job.tile;
    for (int64_t t = 0; t < tile.num_rows; ++t) {
      float* const out =
          outputs_ +
          ((tile.first_row + t) * heads_ + job.kv_head * group_) * d_;
      for (int64_t g = 0; g < group_; ++g) {
        const float scale = 1.0f / sums.total[t * group_ + g];
        const float* const values = sums.values + (t * group_ + g) * d_;
        for (int64_t c = 0; c < d_; ++c) out[g * d_ + c] = values[c] * scale;
      }
    }
  }

  const LayerContext& context_;
  const kernels::KernelTable& kernels_;
  const int64_t heads_;
  const int64_t kv_heads_;
  const int64_t group_;  // query heads of one KV head
  const int64_t d_;
  const float scale_;
  const int64_t rows_;
  const float* const queries_;  // [KV heads, rows, group, D]
  float* const outputs_;        // [rows, heads, D]
};

}  // namespace

void PagedAttention(const LayerContext& context,
                    absl::Span<const LayerSequence> sequences, int64_t rows,
                    const float* queries, float* outputs) {
  Attention(context, rows, queries, outputs).Run(sequences);
}

}  // namespace switchyard::attention_worker
