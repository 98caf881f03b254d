// The middle of a DeltaNet layer for training on a CPU: convolution, SiLU,
// normalised queries and keys, the gated delta rule token by token, and the
// gated norm; forward and backward. architecture.py has the same in torch, and
// delta_rule.py the formulas.
//
// One thread. Loops run over constants and contiguous floats so that the
// compiler vectorizes them (-O3 -march=native -ffast-math). Built and called by
// native_ops.py.
//
// Shapes: N tokens in whole sequences, KH key heads, VH value heads, of D
// values each; C = (2 KH + VH) D channels in the order q, k, v. `borders` has S
// + 1 entries.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

constexpr int D = 32;      // of key and value heads
constexpr int kTaps = 4;   // of the convolution
constexpr int kSpan = 16;  // tokens from one kept state to the next
constexpr float kNormEps = 1e-6f;

struct Shape {
  int key_heads, value_heads, sequences;
  const int* borders;
  float eps;

  int channels() const { return (2 * key_heads + value_heads) * D; }
  int values() const { return value_heads * D; }
  int tokens() const { return borders[sequences]; }
};

// What the forward pass leaves for the backward pass.
struct Saved {
  float* before_silu;  // [N, C]
  float* active;       // [N, C], after SiLU; q and k normalised, q scaled
  float* scale;        // [N, 2 KH], what q and k were multiplied by
  float* written;      // [N, VH D], d of the delta rule
  float* read;         // [N, VH D], o of the delta rule
  float* decay;        // [N, VH], exp(g)
  float* beta;         // [N, VH]
  float* states;       // [spans, VH, D, D], before each span's first token
};

// Half of a head's row; the compiler's vector type, whatever registers there
// are.
typedef float Vec __attribute__((vector_size(64)));
struct Row {
  Vec low, high;
};
static_assert(sizeof(Row) == D * sizeof(float));

inline Row Load(const float* from) {
  Row row;
  std::memcpy(&row, from, sizeof row);
  return row;
}
inline void Store(const Row& row, float* to) {
  std::memcpy(to, &row, sizeof row);
}
inline void AddTo(const Row& row, float* to) {
  const Row sum = Load(to);
  Store({sum.low + row.low, sum.high + row.high}, to);
}
inline float Sum(Vec x) {
  typedef float Half __attribute__((vector_size(32)));
  typedef float Quarter __attribute__((vector_size(16)));
  Half halves[2];
  std::memcpy(halves, &x, sizeof x);
  const Half half = halves[0] + halves[1];
  Quarter quarters[2];
  std::memcpy(quarters, &half, sizeof half);
  const Quarter quarter = quarters[0] + quarters[1];
  return (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
}

inline float Sigmoid(float x) { return 1.f / (1.f + std::exp(-x)); }
inline float Softplus(float x) {
  return x > 20.f ? x : std::log1p(std::exp(x));
}

inline float Dot(const float* a, const float* b) {
  float sum = 0;
  for (int i = 0; i < D; ++i) sum += a[i] * b[i];
  return sum;
}

int SpansOf(const Shape& shape, int sequence) {
  return (shape.borders[sequence + 1] - shape.borders[sequence] + kSpan - 1) /
         kSpan;
}

void TransposeTaps(const float* conv, int channels, std::vector<float>* taps) {
  taps->resize(kTaps * channels);
  for (int c = 0; c < channels; ++c)
    for (int j = 0; j < kTaps; ++j)
      (*taps)[j * channels + c] = conv[c * kTaps + j];
}

void ConvolveForward(const Shape& shape, const float* mixed, const float* conv,
                     const Saved& saved) {
  const int channels = shape.channels();
  std::vector<float> taps;
  TransposeTaps(conv, channels, &taps);
  for (int s = 0; s < shape.sequences; ++s) {
    for (int t = shape.borders[s]; t < shape.borders[s + 1]; ++t) {
      float* sum = saved.before_silu + size_t(t) * channels;
      float* active = saved.active + size_t(t) * channels;
      std::memset(sum, 0, channels * sizeof(float));
      for (int j = 0; j < kTaps; ++j) {
        const int from = t - (kTaps - 1) + j;
        if (from < shape.borders[s]) continue;
        const float* x = mixed + size_t(from) * channels;
        const float* w = &taps[j * channels];
        for (int c = 0; c < channels; ++c) sum[c] += x[c] * w[c];
      }
      for (int c = 0; c < channels; ++c) active[c] = sum[c] * Sigmoid(sum[c]);
      for (int head = 0; head < 2 * shape.key_heads; ++head) {
        float* x = active + head * D;
        float scale = 1.f / std::sqrt(Dot(x, x) + kNormEps);
        if (head < shape.key_heads) scale /= std::sqrt(float(D));
        for (int i = 0; i < D; ++i) x[i] *= scale;
        saved.scale[size_t(t) * 2 * shape.key_heads + head] = scale;
      }
    }
  }
}

void ConvolveBackward(const Shape& shape, const float* mixed, const float* conv,
                      const Saved& saved, float* active_grad, float* mixed_grad,
                      float* conv_grad) {
  const int channels = shape.channels();
  std::vector<float> taps, taps_grad(kTaps * channels, 0.f);
  TransposeTaps(conv, channels, &taps);
  std::memset(mixed_grad, 0, size_t(shape.tokens()) * channels * sizeof(float));
  for (int s = 0; s < shape.sequences; ++s) {
    for (int t = shape.borders[s]; t < shape.borders[s + 1]; ++t) {
      float* grad = active_grad + size_t(t) * channels;
      const float* sum = saved.before_silu + size_t(t) * channels;
      const float* active = saved.active + size_t(t) * channels;
      for (int head = 0; head < 2 * shape.key_heads; ++head) {
        float* g = grad + head * D;
        const float* x = active + head * D;
        const float scale = saved.scale[size_t(t) * 2 * shape.key_heads + head];
        // x has length 1, or 1 / sqrt(D) for a query.
        const float along = Dot(g, x) * (head < shape.key_heads ? D : 1);
        for (int i = 0; i < D; ++i) g[i] = scale * (g[i] - along * x[i]);
      }
      for (int c = 0; c < channels; ++c) {
        const float gate = Sigmoid(sum[c]);
        grad[c] *= gate * (1.f + sum[c] * (1.f - gate));
      }
      for (int j = 0; j < kTaps; ++j) {
        const int from = t - (kTaps - 1) + j;
        if (from < shape.borders[s]) continue;
        const float* x = mixed + size_t(from) * channels;
        float* x_grad = mixed_grad + size_t(from) * channels;
        const float* w = &taps[j * channels];
        float* w_grad = &taps_grad[j * channels];
        for (int c = 0; c < channels; ++c) {
          x_grad[c] += grad[c] * w[c];
          w_grad[c] += grad[c] * x[c];
        }
      }
    }
  }
  for (int c = 0; c < channels; ++c)
    for (int j = 0; j < kTaps; ++j)
      conv_grad[c * kTaps + j] = taps_grad[j * channels + c];
}

// Where one value head's rows lie.
struct Head {
  int q, k, v, value, index;

  Head(const Shape& shape, int head)
      : q(head / (shape.value_heads / shape.key_heads) * D),
        k(q + shape.key_heads * D),
        v(2 * shape.key_heads * D + head * D),
        value(head * D),
        index(head) {}
};

void RecurrenceForward(const Shape& shape, const Saved& saved) {
  const int channels = shape.channels(), values = shape.values(),
            heads = shape.value_heads;
  for (int h = 0; h < heads; ++h) {
    const Head head(shape, h);
    int span = 0;
    for (int s = 0; s < shape.sequences; ++s) {
      Row state[D] = {};
      for (int t = shape.borders[s]; t < shape.borders[s + 1]; ++t) {
        if ((t - shape.borders[s]) % kSpan == 0) {
          std::memcpy(saved.states + (size_t(span) * heads + h) * D * D, state,
                      sizeof state);
          ++span;
        }
        const float* q = saved.active + size_t(t) * channels + head.q;
        const float* k = saved.active + size_t(t) * channels + head.k;
        const Row v = Load(saved.active + size_t(t) * channels + head.v);
        const float decay = saved.decay[size_t(t) * heads + h];
        const float beta = saved.beta[size_t(t) * heads + h];
        // Even and odd rows apart: two chains of additions that do not wait for
        // each other.
        Row held[2] = {}, out[2] = {};
        for (int i = 0; i < D; i += 2) {
          for (int odd = 0; odd < 2; ++odd) {
            held[odd].low += k[i + odd] * state[i + odd].low;
            held[odd].high += k[i + odd] * state[i + odd].high;
          }
        }
        const Row write = {
            beta * (v.low - decay * (held[0].low + held[1].low)),
            beta * (v.high - decay * (held[0].high + held[1].high))};
        for (int i = 0; i < D; i += 2) {
          for (int odd = 0; odd < 2; ++odd) {
            Row& row = state[i + odd];
            row.low = decay * row.low + k[i + odd] * write.low;
            row.high = decay * row.high + k[i + odd] * write.high;
            out[odd].low += q[i + odd] * row.low;
            out[odd].high += q[i + odd] * row.high;
          }
        }
        Store(write, saved.written + size_t(t) * values + head.value);
        Store({out[0].low + out[1].low, out[0].high + out[1].high},
              saved.read + size_t(t) * values + head.value);
      }
    }
  }
}

struct StepGradients {
  Row q, k;
  float v[D], g, beta;
};

// One token's step back. `before` and `after` are the states around it,
// transposed (a row for each value); `state_grad`, transposed too, goes from
// the gradient of `after` to that of `before`.
StepGradients StepBackward(const Row* before, const Row* after, const Row& q,
                           const Row& k, const float* write,
                           const float* out_grad, float decay, float beta,
                           Row* state_grad) {
  StepGradients grads = {};
  float write_grad[D];
  Row q_grad = {}, k_grad = {};
  for (int j = 0; j < D; ++j) {
    Row& row = state_grad[j];
    row.low += out_grad[j] * q.low;
    row.high += out_grad[j] * q.high;
    write_grad[j] = Sum(row.low * k.low + row.high * k.high);
    q_grad.low += out_grad[j] * after[j].low;
    q_grad.high += out_grad[j] * after[j].high;
    k_grad.low += write[j] * row.low;
    k_grad.high += write[j] * row.high;
  }
  grads.beta = Dot(write_grad, write) / beta;
  Vec decay_grad = {};
  for (int j = 0; j < D; ++j) {
    const float held_grad = beta * write_grad[j];
    grads.v[j] = held_grad;
    k_grad.low -= (decay * held_grad) * before[j].low;
    k_grad.high -= (decay * held_grad) * before[j].high;
    const Row grad = {state_grad[j].low - held_grad * k.low,
                      state_grad[j].high - held_grad * k.high};
    decay_grad += grad.low * before[j].low + grad.high * before[j].high;
    state_grad[j] = {decay * grad.low, decay * grad.high};
  }
  grads.q = q_grad;
  grads.k = k_grad;
  grads.g = Sum(decay_grad) * decay;
  return grads;
}

// The states of one span, transposed: states[u + 1] is after the span's token
// u.
void SpanStates(const float* first, const Saved& saved, const Head& head,
                int channels, int values, int heads, int start, int end,
                Row (*states)[D]) {
  float transposed[D][D];
  for (int i = 0; i < D; ++i)
    for (int j = 0; j < D; ++j) transposed[j][i] = first[i * D + j];
  std::memcpy(states[0], transposed, sizeof transposed);
  for (int t = start; t < end; ++t) {
    const Row k = Load(saved.active + size_t(t) * channels + head.k);
    const float* write = saved.written + size_t(t) * values + head.value;
    const float decay = saved.decay[size_t(t) * heads + head.index];
    const Row* from = states[t - start];
    Row* to = states[t - start + 1];
    for (int j = 0; j < D; ++j) {
      to[j].low = decay * from[j].low + write[j] * k.low;
      to[j].high = decay * from[j].high + write[j] * k.high;
    }
  }
}

// `active_grad` [N, C] must be zero where q and k stand; gradients of g and
// beta [N, VH].
void RecurrenceBackward(const Shape& shape, const Saved& saved,
                        const float* read_grad, float* active_grad,
                        float* g_grad, float* beta_grad) {
  const int channels = shape.channels(), values = shape.values(),
            heads = shape.value_heads;
  static thread_local Row states[kSpan + 1][D];
  for (int h = 0; h < heads; ++h) {
    const Head head(shape, h);
    int first_span = 0;
    for (int s = 0; s < shape.sequences; ++s) {
      Row state_grad[D] = {};
      const int spans = SpansOf(shape, s);
      for (int span = spans - 1; span >= 0; --span) {
        const int start = shape.borders[s] + span * kSpan;
        const int end = std::min(start + kSpan, shape.borders[s + 1]);
        SpanStates(
            saved.states + (size_t(first_span + span) * heads + h) * D * D,
            saved, head, channels, values, heads, start, end, states);
        for (int t = end - 1; t >= start; --t) {
          const float* active = saved.active + size_t(t) * channels;
          float* grad = active_grad + size_t(t) * channels;
          const size_t row = size_t(t) * heads + h;
          const StepGradients grads =
              StepBackward(states[t - start], states[t - start + 1],
                           Load(active + head.q), Load(active + head.k),
                           saved.written + size_t(t) * values + head.value,
                           read_grad + size_t(t) * values + head.value,
                           saved.decay[row], saved.beta[row], state_grad);
          AddTo(grads.q, grad + head.q);
          AddTo(grads.k, grad + head.k);
          std::memcpy(grad + head.v, grads.v, sizeof grads.v);
          g_grad[row] = grads.g;
          beta_grad[row] = grads.beta;
        }
      }
      first_span += spans;
    }
  }
}

void GatesForward(const Shape& shape, const float* ba, const float* log_a,
                  const float* dt_bias, const Saved& saved) {
  const int heads = shape.value_heads;
  for (int t = 0; t < shape.tokens(); ++t) {
    for (int h = 0; h < heads; ++h) {
      const float* row = ba + size_t(t) * 2 * heads;
      saved.beta[size_t(t) * heads + h] = Sigmoid(row[h]);
      saved.decay[size_t(t) * heads + h] =
          std::exp(-std::exp(log_a[h]) * Softplus(row[heads + h] + dt_bias[h]));
    }
  }
}

void GatesBackward(const Shape& shape, const float* ba, const float* log_a,
                   const float* dt_bias, const Saved& saved,
                   const float* g_grad, const float* beta_grad, float* ba_grad,
                   float* log_a_grad, float* dt_bias_grad) {
  const int heads = shape.value_heads;
  for (int t = 0; t < shape.tokens(); ++t) {
    for (int h = 0; h < heads; ++h) {
      const size_t row = size_t(t) * heads + h;
      const float beta = saved.beta[row];
      const float step = ba[size_t(t) * 2 * heads + heads + h] + dt_bias[h];
      const float rate = -std::exp(log_a[h]);
      const float step_grad = g_grad[row] * rate * Sigmoid(step);
      ba_grad[size_t(t) * 2 * heads + h] = beta_grad[row] * beta * (1.f - beta);
      ba_grad[size_t(t) * 2 * heads + heads + h] = step_grad;
      log_a_grad[h] += g_grad[row] * rate * Softplus(step);
      dt_bias_grad[h] += step_grad;
    }
  }
}

void GatedNormForward(const Shape& shape, const float* z, const float* norm,
                      const Saved& saved, float* out) {
  for (size_t row = 0; row < size_t(shape.tokens()) * shape.value_heads;
       ++row) {
    const float* x = saved.read + row * D;
    const float* gate = z + row * D;
    const float scale = 1.f / std::sqrt(Dot(x, x) / D + shape.eps);
    for (int i = 0; i < D; ++i)
      out[row * D + i] = x[i] * scale * norm[i] * gate[i] * Sigmoid(gate[i]);
  }
}

void GatedNormBackward(const Shape& shape, const float* z, const float* norm,
                       const Saved& saved, const float* out_grad, float* z_grad,
                       float* read_grad, float* norm_grad) {
  for (size_t row = 0; row < size_t(shape.tokens()) * shape.value_heads;
       ++row) {
    const float* x = saved.read + row * D;
    const float* gate = z + row * D;
    const float* grad = out_grad + row * D;
    const float scale = 1.f / std::sqrt(Dot(x, x) / D + shape.eps);
    alignas(64) float unit_grad[D];
    float along = 0;
    for (int i = 0; i < D; ++i) {
      const float sigmoid = Sigmoid(gate[i]), silu = gate[i] * sigmoid,
                  unit = x[i] * scale;
      z_grad[row * D + i] = grad[i] * unit * norm[i] * sigmoid *
                            (1.f + gate[i] * (1.f - sigmoid));
      norm_grad[i] += grad[i] * unit * silu;
      unit_grad[i] = grad[i] * norm[i] * silu;
      along += unit_grad[i] * unit;
    }
    for (int i = 0; i < D; ++i)
      read_grad[row * D + i] =
          scale * (unit_grad[i] - x[i] * scale * along / D);
  }
}

}  // namespace

extern "C" {

int demo_delta_net_span() { return kSpan; }

void demo_delta_net_forward(const Shape* shape, const Saved* saved,
                            const float* mixed, const float* z, const float* ba,
                            const float* conv, const float* log_a,
                            const float* dt_bias, const float* norm,
                            float* out) {
  ConvolveForward(*shape, mixed, conv, *saved);
  GatesForward(*shape, ba, log_a, dt_bias, *saved);
  RecurrenceForward(*shape, *saved);
  GatedNormForward(*shape, z, norm, *saved, out);
}

// The gradients of log_a, dt_bias and norm are added to; the others are set.
void demo_delta_net_backward(const Shape* shape, const Saved* saved,
                             const float* mixed, const float* z,
                             const float* ba, const float* conv,
                             const float* log_a, const float* dt_bias,
                             const float* norm, const float* out_grad,
                             float* mixed_grad, float* z_grad, float* ba_grad,
                             float* conv_grad, float* log_a_grad,
                             float* dt_bias_grad, float* norm_grad) {
  const size_t tokens = shape->tokens();
  std::vector<float> read_grad(tokens * shape->values());
  std::vector<float> active_grad(tokens * shape->channels(), 0.f);
  std::vector<float> g_grad(tokens * shape->value_heads),
      beta_grad(g_grad.size());
  GatedNormBackward(*shape, z, norm, *saved, out_grad, z_grad, read_grad.data(),
                    norm_grad);
  RecurrenceBackward(*shape, *saved, read_grad.data(), active_grad.data(),
                     g_grad.data(), beta_grad.data());
  GatesBackward(*shape, ba, log_a, dt_bias, *saved, g_grad.data(),
                beta_grad.data(), ba_grad, log_a_grad, dt_bias_grad);
  ConvolveBackward(*shape, mixed, conv, *saved, active_grad.data(), mixed_grad,
                   conv_grad);
}

}  // extern "C"
