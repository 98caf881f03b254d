#include "attention_worker/layers/gated_delta_net.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "attention_worker/layers/mat_mul.h"
#include "kernels/math.h"

namespace switchyard::attention_worker {
namespace {

// The l2 norm's epsilon is the architecture's, not rms_norm_eps.
constexpr float kL2NormEps = 1e-6f;

// Columns of one head's state that stream past a sequence's tokens together:
// with dk = 128 they are 16 KiB, and stay in the first-level cache.
constexpr int64_t kStateColumns = 32;
// From this many tokens on it pays to copy the columns out of the state, whose
// rows lie dv floats apart and would contend for few cache sets, and back.
// Fewer tokens take whole rows of a head (64 KiB at dk = dv = 128), which come
// from memory as one stream.
constexpr int64_t kMinTokensToCopy = 4;
constexpr int64_t kMaxStreamColumns = 128;

// Channels of the convolution that one thread takes through all tokens.
constexpr int64_t kConvChannels = 512;

// Rows whose fused projections exist at a time, before they are regrouped: at
// H = 2048 they take 48 KiB each. Every further block of rows reads the weights
// again.
constexpr int64_t kProjectedRows = 512;

// Multiply-adds that an exponential costs, about.
constexpr int64_t kExpCost = 10;

// The layer's sizes, with the letters of model/config.h.
struct Shape {
  explicit Shape(const model::ModelConfig& config)
      : nk(config.linear_num_key_heads),
        nv(config.linear_num_value_heads),
        dk(config.linear_key_head_dim),
        dv(config.linear_value_head_dim),
        taps(config.linear_conv_kernel_dim) {}
  const int64_t nk, nv, dk, dv, taps;
  int64_t r() const { return nv / nk; }  // value heads of a key head
  int64_t k_width() const { return nk * dk; }
  int64_t v_width() const { return nv * dv; }
  int64_t channels() const { return 2 * k_width() + v_width(); }
};

// One step of one layer. Arrays are [rows, ...]: the rows of the step, and
// behind them, sequence after sequence, those of accepted drafts that a state
// still lacks (LayerSequence::pending_rows).
class Pass {
 public:
  Pass(const LayerContext& context, const GatedDeltaNetWeights& weights,
       absl::Span<const LayerSequence> sequences, int64_t rows)
      : context_(context),
        kernels_(*context.kernels),
        weights_(weights),
        sequences_(sequences),
        first_pending_(FirstPendingRows(sequences, rows)),
        rows_(rows),
        all_rows_(first_pending_.back()),
        shape_(*context.config),
        qkv_(context.scratch->Floats(all_rows_ * shape_.channels())),
        z_(context.scratch->Floats(rows * shape_.v_width())),
        decay_(context.scratch->Floats(all_rows_ * shape_.nv)),
        beta_(context.scratch->Floats(all_rows_ * shape_.nv)) {}

  // x [rows, H] to qkv_, z_, decay_ and beta_: the fused projections, regrouped
  // from one group a key head to flat q | k | v, z, b, a.
  void Project(const float* x) {
    for (int64_t first = 0; first < rows_; first += kProjectedRows) {
      ProjectRows(x, first, std::min(kProjectedRows, rows_ - first));
    }
  }

  // Takes over what accepted drafts brought in the last step, and keeps what
  // this step's provisional rows bring. After Project().
  void ExchangeDrafts() {
    const Shape& s = shape_;
    const int64_t stride = s.channels() + 2 * s.nv;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const LayerSequence& sequence = sequences_[i];
      for (int64_t t = 0; t < sequence.pending_rows; ++t) {
        const float* const kept = sequence.draft_rows + t * stride;
        const int64_t row = first_pending_[i] + t;
        std::copy_n(kept, s.channels(), qkv_ + row * s.channels());
        std::copy_n(kept + s.channels(), s.nv, decay_ + row * s.nv);
        std::copy_n(kept + s.channels() + s.nv, s.nv, beta_ + row * s.nv);
      }
      const int64_t first =
          sequence.first_row + sequence.num_rows - sequence.provisional_rows;
      for (int64_t t = 0; t < sequence.provisional_rows; ++t) {
        float* const kept = sequence.draft_rows + t * stride;
        const int64_t row = first + t;
        std::copy_n(qkv_ + row * s.channels(), s.channels(), kept);
        std::copy_n(decay_ + row * s.nv, s.nv, kept + s.channels());
        std::copy_n(beta_ + row * s.nv, s.nv, kept + s.channels() + s.nv);
      }
    }
  }

  // qkv_ to silu(conv1d(qkv_)), in place.
  void Convolve() {
    const Shape& s = shape_;
    const int64_t blocks = (s.channels() + kConvChannels - 1) / kConvChannels;
    ForEach(context_, static_cast<int64_t>(sequences_.size()) * blocks,
            AverageRows() * kConvChannels * (s.taps + kExpCost),
            [&](int64_t begin, int64_t end) {
              std::vector<float> tail((s.taps - 1) * kConvChannels);
              for (int64_t i = begin; i < end; ++i) {
                ConvolveChannels(i / blocks, i % blocks * kConvChannels,
                                 tail.data());
              }
            });
  }

  // l2 norms of q (scaled by 1 / sqrt(dk)) and k, in place.
  void NormaliseQueriesAndKeys() {
    const Shape& s = shape_;
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.dk));
    ForEach(context_, all_rows_, 4 * s.k_width(),
            [&](int64_t begin, int64_t end) {
              for (int64_t t = begin; t < end; ++t) {
                for (int64_t h = 0; h < 2 * s.nk; ++h) {  // q's heads, then k's
                  float* const head = qkv_ + t * s.channels() + h * s.dk;
                  kernels_.l2_norm(head, kL2NormEps, h < s.nk ? scale : 1.0f,
                                   s.dk, head);
                }
              }
            });
  }

  // The recurrence, into out [rows, nv, dv]; null if there are no rows but
  // pending ones.
  void Recur(float* out) {
    const TimedPart timed(context_.timer, StepPart::kRecurrence);
    const Shape& s = shape_;
    const bool copies =
        std::any_of(sequences_.begin(), sequences_.end(), WorksOnCopy);
    const int64_t width =
        copies ? kStateColumns : std::min(kMaxStreamColumns, s.dv);
    const int64_t blocks = (s.dv + width - 1) / width;
    const int64_t per_sequence = s.nv * blocks;
    ForEach(context_, static_cast<int64_t>(sequences_.size()) * per_sequence,
            AverageRows() * 3 * s.dk * width, [&](int64_t begin, int64_t end) {
              std::vector<float> columns(copies ? s.dk * width : 0);
              for (int64_t i = begin; i < end; ++i) {
                const int64_t column = i % blocks * width;
                RecurColumns(i / per_sequence, i % per_sequence / blocks,
                             column, std::min(width, s.dv - column),
                             columns.data(), out);
              }
            });
  }

  // Per head rms(out) * norm * silu(z), in place.
  void NormAndGate(float* out) {
    const Shape& s = shape_;
    const float eps = static_cast<float>(context_.config->rms_norm_eps);
    ForEach(context_, rows_, (kExpCost + 4) * s.v_width(),
            [&](int64_t begin, int64_t end) {
              for (int64_t i = begin * s.nv; i < end * s.nv; ++i) {
                float* const head = out + i * s.dv;
                kernels_.rms_norm(head, weights_.norm.data(), /*offset=*/0.0f,
                                  eps, s.dv, head);
                kernels_.silu_mul(z_ + i * s.dv, head, s.dv, head);
              }
            });
  }

 private:
  // Where the pending rows of each sequence begin, and the end of all rows.
  static std::vector<int64_t> FirstPendingRows(
      absl::Span<const LayerSequence> sequences, int64_t rows) {
    std::vector<int64_t> first = {rows};
    for (const LayerSequence& sequence : sequences) {
      first.push_back(first.back() + sequence.pending_rows);
    }
    return first;
  }

  // Provisional rows must not touch the state; for many rows a copy of some
  // columns is faster to work on.
  static bool WorksOnCopy(const LayerSequence& sequence) {
    return sequence.provisional_rows > 0 ||
           sequence.pending_rows + sequence.num_rows >= kMinTokensToCopy;
  }

  int64_t AverageRows() const {
    return std::max<int64_t>(
        all_rows_ / static_cast<int64_t>(sequences_.size()), 1);
  }

  // Project(), for rows [first, first + count).
  void ProjectRows(const float* x, int64_t first, int64_t count) {
    const Shape& s = shape_;
    const int64_t hidden = context_.config->hidden_size;
    const int64_t qkvz_width = s.channels() + s.v_width();
    const Scratch::Frame frame(context_.scratch);
    float* const qkvz = context_.scratch->Floats(count * qkvz_width);
    float* const ba = context_.scratch->Floats(count * 2 * s.nv);
    const float* const in = x + first * hidden;
    const MatMulJob jobs[] = {
        {weights_.in_proj_qkvz, in, hidden, qkvz, qkvz_width},
        {weights_.in_proj_ba, in, hidden, ba, 2 * s.nv}};
    {
      const TimedPart timed(context_.timer, StepPart::kProjections);
      MatMul(context_, jobs, count);
    }
    ForEach(context_, count, qkvz_width + 4 * kExpCost * s.nv,
            [&](int64_t begin, int64_t end) {
              for (int64_t t = begin; t < end; ++t) {
                RegroupQkvz(qkvz + t * qkvz_width, first + t);
                ComputeGates(ba + t * 2 * s.nv, first + t);
              }
            });
  }

  void RegroupQkvz(const float* qkvz, int64_t row) {
    const Shape& s = shape_;
    const int64_t group_v = s.r() * s.dv;
    float* const q = qkv_ + row * s.channels();
    float* const k = q + s.k_width();
    float* const v = k + s.k_width();
    float* const z = z_ + row * s.v_width();
    const float* in = qkvz;
    const auto take = [&in](float* to, int64_t n) {
      std::memcpy(to, in, n * sizeof(float));
      in += n;
    };
    for (int64_t h = 0; h < s.nk; ++h) {
      take(q + h * s.dk, s.dk);
      take(k + h * s.dk, s.dk);
      take(v + h * group_v, group_v);
      take(z + h * group_v, group_v);
    }
  }

  // decay = e^g with g = -exp(A_log) softplus(a + dt_bias); beta = sigmoid(b).
  void ComputeGates(const float* ba, int64_t row) {
    const Shape& s = shape_;
    for (int64_t h = 0; h < s.nv; ++h) {
      const float* const group = ba + h / s.r() * 2 * s.r();
      const float b = group[h % s.r()];
      const float a = group[s.r() + h % s.r()];
      const float g =
          -weights_.decay_rate[h] * kernels::Softplus(a + weights_.dt_bias[h]);
      decay_[row * s.nv + h] = kernels::Exp(g);
      beta_[row * s.nv + h] = kernels::Sigmoid(b);
    }
  }

  // Channels [channel, channel + kConvChannels) of sequence `index`; `tail`
  // holds their part of the tail while the tokens go by: [K - 1, that many].
  void ConvolveChannels(int64_t index, int64_t channel, float* tail) {
    const LayerSequence& sequence = sequences_[index];
    const Shape& s = shape_;
    const int64_t n = std::min(kConvChannels, s.channels() - channel);
    for (int64_t j = 0; j < s.taps - 1; ++j) {
      std::memcpy(tail + j * n, sequence.conv_tail + j * s.channels() + channel,
                  n * sizeof(float));
    }
    const auto step = [&](int64_t row) {
      float* const x = qkv_ + row * s.channels() + channel;
      kernels_.conv_step(weights_.conv1d.data() + channel * s.taps, s.taps, x,
                         tail, n, x);
    };
    for (int64_t t = 0; t < sequence.pending_rows; ++t) {
      step(first_pending_[index] + t);
    }
    const int64_t certain = sequence.num_rows - sequence.provisional_rows;
    auto snapshot = sequence.snapshots.begin();
    for (int64_t t = 0; t < certain; ++t) {
      step(sequence.first_row + t);
      if (snapshot != sequence.snapshots.end() &&
          snapshot->after_rows == t + 1) {
        StoreTail(tail, channel, n, snapshot->conv_tail);
        ++snapshot;
      }
    }
    StoreTail(tail, channel, n, sequence.conv_tail);
    for (int64_t t = certain; t < sequence.num_rows; ++t) {
      step(sequence.first_row + t);
    }
  }

  // `tail` [K - 1, n] to channels [channel, channel + n) of `conv_tail`.
  void StoreTail(const float* tail, int64_t channel, int64_t n,
                 float* conv_tail) const {
    for (int64_t j = 0; j < shape_.taps - 1; ++j) {
      std::memcpy(conv_tail + j * shape_.channels() + channel, tail + j * n,
                  n * sizeof(float));
    }
  }

  // Columns [column, column + n) of value head `head`'s state of sequence
  // `index`; `copy` has room for them if it WorksOnCopy().
  void RecurColumns(int64_t index, int64_t head, int64_t column, int64_t n,
                    float* copy, float* out) {
    const LayerSequence& sequence = sequences_[index];
    const Shape& s = shape_;
    float* const home = sequence.recurrent + head * s.dk * s.dv + column;
    const bool copied = WorksOnCopy(sequence);
    float* const state = copied ? copy : home;
    const int64_t stride = copied ? n : s.dv;
    if (copied) {
      for (int64_t i = 0; i < s.dk; ++i) {
        std::memcpy(copy + i * n, home + i * s.dv, n * sizeof(float));
      }
    }
    const int64_t value = head * s.dv + column;
    const auto step = [&](int64_t row, float* to) {
      const float* const q = qkv_ + row * s.channels() + head / s.r() * s.dk;
      const float* const k = q + s.k_width();
      const float* const v =
          qkv_ + row * s.channels() + 2 * s.k_width() + value;
      kernels_.delta_rule_step(q, k, v, decay_[row * s.nv + head],
                               beta_[row * s.nv + head], s.dk, n, stride, state,
                               to);
    };
    const auto output = [&](int64_t row) {
      return out + row * s.v_width() + value;
    };
    float unused[kMaxStreamColumns];  // the output of a token that had its own
    for (int64_t t = 0; t < sequence.pending_rows; ++t) {
      step(first_pending_[index] + t, unused);
    }
    const int64_t certain = sequence.num_rows - sequence.provisional_rows;
    auto snapshot = sequence.snapshots.begin();
    for (int64_t t = 0; t < certain; ++t) {
      step(sequence.first_row + t, output(sequence.first_row + t));
      if (snapshot != sequence.snapshots.end() &&
          snapshot->after_rows == t + 1) {
        StoreColumns(state, stride, n,
                     snapshot->recurrent + head * s.dk * s.dv + column);
        ++snapshot;
      }
    }
    if (copied) StoreColumns(copy, n, n, home);
    for (int64_t t = certain; t < sequence.num_rows; ++t) {
      step(sequence.first_row + t, output(sequence.first_row + t));
    }
  }

  // `n` columns whose rows are `stride` apart, to a state's.
  void StoreColumns(const float* columns, int64_t stride, int64_t n,
                    float* state) const {
    for (int64_t i = 0; i < shape_.dk; ++i) {
      std::memcpy(state + i * shape_.dv, columns + i * stride,
                  n * sizeof(float));
    }
  }

  const LayerContext& context_;
  const kernels::KernelTable& kernels_;
  const GatedDeltaNetWeights& weights_;
  const absl::Span<const LayerSequence> sequences_;
  const std::vector<int64_t> first_pending_;  // and the end of all rows
  const int64_t rows_;                        // of the step
  const int64_t all_rows_;                    // with pending ones
  const Shape shape_;
  float* const qkv_;    // [all rows, channels], q | k | v
  float* const z_;      // [rows, nv, dv]
  float* const decay_;  // [all rows, nv]
  float* const beta_;   // [all rows, nv]
};

}  // namespace

void GatedDeltaNet(const LayerContext& context,
                   const GatedDeltaNetWeights& weights,
                   absl::Span<const LayerSequence> sequences, int64_t rows,
                   const float* x, float* y) {
  const Scratch::Frame frame(context.scratch);
  Pass pass(context, weights, sequences, rows);
  pass.Project(x);
  pass.ExchangeDrafts();
  pass.Convolve();
  pass.NormaliseQueriesAndKeys();
  const int64_t v_width = weights.out_proj.cols;
  float* const out = context.scratch->Floats(rows * v_width);
  pass.Recur(out);
  pass.NormAndGate(out);
  const MatMulJob output[] = {
      {weights.out_proj, out, v_width, y, context.config->hidden_size}};
  const TimedPart timed(context.timer, StepPart::kProjections);
  MatMul(context, output, rows);
}

void TakeInPending(const LayerContext& context,
                   const GatedDeltaNetWeights& weights,
                   absl::Span<const LayerSequence> sequences) {
  const Scratch::Frame frame(context.scratch);
  Pass pass(context, weights, sequences, /*rows=*/0);
  pass.ExchangeDrafts();
  pass.Convolve();
  pass.NormaliseQueriesAndKeys();
  pass.Recur(/*out=*/nullptr);
}

}  // namespace switchyard::attention_worker
