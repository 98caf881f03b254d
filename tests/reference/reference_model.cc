#include "tests/reference/reference_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>
#include <utility>

#include "base/check.h"

namespace switchyard::testing {
namespace {

using model::LayerType;
using model::ModelConfig;

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double Silu(double x) { return x * Sigmoid(x); }
double Softplus(double x) { return x > 20 ? x : std::log1p(std::exp(x)); }

double Dot(const Row& a, const Row& b) {
  SY_CHECK(a.size() == b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// y = W x.
Row Multiply(const Rows& w, const Row& x) {
  Row y;
  for (const Row& row : w) y.push_back(Dot(row, x));
  return y;
}

Row Add(const Row& a, const Row& b) {
  Row y;
  for (size_t i = 0; i < a.size(); ++i) y.push_back(a[i] + b[i]);
  return y;
}

Row Slice(const Row& x, size_t begin, size_t size) {
  return Row(x.begin() + begin, x.begin() + begin + size);
}

// x / sqrt(mean(x^2) + eps) * (offset + w).
Row RmsNorm(const Row& x, const Row& w, double offset, double eps) {
  const double scale = 1 / std::sqrt(Dot(x, x) / x.size() + eps);
  Row y;
  for (size_t i = 0; i < x.size(); ++i) {
    y.push_back(x[i] * scale * (offset + w[i]));
  }
  return y;
}

// x / sqrt(sum(x^2) + 1e-6) * scale.
Row L2Norm(const Row& x, double scale) {
  const double norm = std::sqrt(Dot(x, x) + 1e-6);
  Row y;
  for (double value : x) y.push_back(value / norm * scale);
  return y;
}

Row SwiGlu(const Rows& gate, const Rows& up, const Rows& down, const Row& x) {
  const Row g = Multiply(gate, x);
  const Row u = Multiply(up, x);
  Row inner;
  for (size_t i = 0; i < g.size(); ++i) inner.push_back(Silu(g[i]) * u[i]);
  return Multiply(down, inner);
}

// Inverse frequencies and the factor on cosines and sines.
struct Rope {
  explicit Rope(const ModelConfig& config) {
    const model::RopeParameters& rope = config.rope;
    const int dim = config.rotary_dim();
    for (int i = 0; i < dim / 2; ++i) {
      inv_freq.push_back(std::pow(rope.theta, -2.0 * i / dim));
    }
    if (!rope.yarn) return;
    const auto rotations_dim = [&](double rotations) {
      return dim *
             std::log(rope.original_max_position_embeddings /
                      (2 * M_PI * rotations)) /
             (2 * std::log(rope.theta));
    };
    double low = rotations_dim(rope.beta_fast);
    double high = rotations_dim(rope.beta_slow);
    if (rope.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, dim - 1.0);
    if (low == high) high += 0.001;
    for (int i = 0; i < dim / 2; ++i) {
      const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
      inv_freq[i] = inv_freq[i] * (1 - ramp) + inv_freq[i] / rope.factor * ramp;
    }
    factor = rope.attention_factor;
  }

  Row Rotate(const Row& head, int64_t position) const {
    const size_t n = inv_freq.size();
    Row y = head;
    for (size_t i = 0; i < n; ++i) {
      // The model was trained with the float product.
      const double angle =
          static_cast<float>(position) * static_cast<float>(inv_freq[i]);
      const double c = factor * std::cos(angle);
      const double s = factor * std::sin(angle);
      y[i] = head[i] * c - head[i + n] * s;
      y[i + n] = head[i + n] * c + head[i] * s;
    }
    return y;
  }

  Row inv_freq;
  double factor = 1;
};

// The weights by name.
class Weights {
 public:
  explicit Weights(const model::Checkpoint& checkpoint)
      : checkpoint_(checkpoint) {}

  Row Vector(const std::string& name) const {
    const auto floats = checkpoint_.FindFloats(name);
    SY_CHECK(floats.ok());
    return Row(floats->begin(), floats->end());
  }
  Rows Matrix(const std::string& name) const {
    const auto view = checkpoint_.Find(name);
    SY_CHECK(view.ok());
    const Row flat = Vector(name);
    return Split(flat, view->rows, view->cols);
  }
  static Rows Split(const Row& flat, int64_t rows, int64_t cols) {
    Rows result;
    for (int64_t r = 0; r < rows; ++r) {
      result.push_back(Slice(flat, r * cols, cols));
    }
    return result;
  }

 private:
  const model::Checkpoint& checkpoint_;
};

Rows GatedAttention(const ModelConfig& config, const Weights& weights,
                    const std::string& prefix, const Rows& x,
                    ReferenceCache* cache) {
  const Rope rope(config);
  const size_t d = config.head_dim;
  const size_t heads = config.num_attention_heads;
  const size_t kv_heads = config.num_key_value_heads;
  const double eps = config.rms_norm_eps;
  const Rows q_proj = weights.Matrix(prefix + "q_proj.weight");
  const Rows k_proj = weights.Matrix(prefix + "k_proj.weight");
  const Rows v_proj = weights.Matrix(prefix + "v_proj.weight");
  const Rows o_proj = weights.Matrix(prefix + "o_proj.weight");
  const Row q_norm = weights.Vector(prefix + "q_norm.weight");
  const Row k_norm = weights.Vector(prefix + "k_norm.weight");

  Rows y;
  for (size_t t = 0; t < x.size(); ++t) {
    const Row qg = Multiply(q_proj, x[t]);
    const Row k = Multiply(k_proj, x[t]);
    Row key;
    for (size_t h = 0; h < kv_heads; ++h) {
      const Row head =
          rope.Rotate(RmsNorm(Slice(k, h * d, d), k_norm, 1, eps), t);
      key.insert(key.end(), head.begin(), head.end());
    }
    cache->keys.push_back(key);
    cache->values.push_back(Multiply(v_proj, x[t]));

    Row mixed;
    for (size_t h = 0; h < heads; ++h) {
      const Row q =
          rope.Rotate(RmsNorm(Slice(qg, 2 * h * d, d), q_norm, 1, eps), t);
      const size_t kv = h / (heads / kv_heads);
      Row p;
      for (size_t j = 0; j <= t; ++j) {
        p.push_back(Dot(q, Slice(cache->keys[j], kv * d, d)) /
                    std::sqrt(static_cast<double>(d)));
      }
      const double max = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (double& value : p) sum += value = std::exp(value - max);
      for (size_t i = 0; i < d; ++i) {
        double o = 0;
        for (size_t j = 0; j <= t; ++j) {
          o += p[j] / sum * cache->values[j][kv * d + i];
        }
        mixed.push_back(o * Sigmoid(qg[(2 * h + 1) * d + i]));
      }
    }
    y.push_back(Multiply(o_proj, mixed));
  }
  return y;
}

Rows GatedDeltaNet(const ModelConfig& config, const Weights& weights,
                   const std::string& prefix, const Rows& x,
                   ReferenceLinearState* state) {
  const size_t nk = config.linear_num_key_heads;
  const size_t nv = config.linear_num_value_heads;
  const size_t dk = config.linear_key_head_dim;
  const size_t dv = config.linear_value_head_dim;
  const size_t taps = config.linear_conv_kernel_dim;
  const size_t r = nv / nk;
  const size_t channels = 2 * nk * dk + nv * dv;
  const Rows in_proj_qkvz = weights.Matrix(prefix + "in_proj_qkvz.weight");
  const Rows in_proj_ba = weights.Matrix(prefix + "in_proj_ba.weight");
  const Row conv1d = weights.Vector(prefix + "conv1d.weight");
  const Row a_log = weights.Vector(prefix + "A_log");
  const Row dt_bias = weights.Vector(prefix + "dt_bias");
  const Row norm = weights.Vector(prefix + "norm.weight");
  const Rows out_proj = weights.Matrix(prefix + "out_proj.weight");

  state->recurrent.assign(nv, Rows(dk, Row(dv, 0)));
  state->conv_tail.assign(taps - 1, Row(channels, 0));
  Rows y;
  for (const Row& input : x) {
    // Regroup: per key head q, k, r values, r gates z; and r b's, r a's.
    const Row qkvz = Multiply(in_proj_qkvz, input);
    const Row ba = Multiply(in_proj_ba, input);
    Row q, k, v, z, b, a;
    const auto append = [](Row* to, const Row& from, size_t begin, size_t n) {
      to->insert(to->end(), from.begin() + begin, from.begin() + begin + n);
    };
    for (size_t h = 0; h < nk; ++h) {
      const size_t group = h * (2 * dk + 2 * r * dv);
      append(&q, qkvz, group, dk);
      append(&k, qkvz, group + dk, dk);
      append(&v, qkvz, group + 2 * dk, r * dv);
      append(&z, qkvz, group + 2 * dk + r * dv, r * dv);
      append(&b, ba, h * 2 * r, r);
      append(&a, ba, h * 2 * r + r, r);
    }
    // Convolution and SiLU over q | k | v.
    Row now = q;
    now.insert(now.end(), k.begin(), k.end());
    now.insert(now.end(), v.begin(), v.end());
    Row convolved;
    for (size_t c = 0; c < channels; ++c) {
      double sum = now[c] * conv1d[c * taps + taps - 1];
      for (size_t j = 0; j + 1 < taps; ++j) {
        sum += state->conv_tail[j][c] * conv1d[c * taps + j];
      }
      convolved.push_back(Silu(sum));
    }
    state->conv_tail.push_back(now);
    state->conv_tail.erase(state->conv_tail.begin());

    Row gated;
    for (size_t h = 0; h < nv; ++h) {
      const size_t key_head = h / r;
      const Row qh = L2Norm(Slice(convolved, key_head * dk, dk),
                            1 / std::sqrt(static_cast<double>(dk)));
      const Row kh = L2Norm(Slice(convolved, (nk + key_head) * dk, dk), 1);
      const Row vh = Slice(convolved, 2 * nk * dk + h * dv, dv);
      const double beta = Sigmoid(b[h]);
      const double g = -std::exp(a_log[h]) * Softplus(a[h] + dt_bias[h]);
      Rows& s = state->recurrent[h];
      for (Row& row : s) {
        for (double& value : row) value *= std::exp(g);
      }
      Row o(dv, 0);
      for (size_t j = 0; j < dv; ++j) {
        double predicted = 0;
        for (size_t i = 0; i < dk; ++i) predicted += kh[i] * s[i][j];
        const double u = beta * (vh[j] - predicted);
        for (size_t i = 0; i < dk; ++i) s[i][j] += kh[i] * u;
        for (size_t i = 0; i < dk; ++i) o[j] += qh[i] * s[i][j];
      }
      o = RmsNorm(o, norm, 0, config.rms_norm_eps);
      for (size_t j = 0; j < dv; ++j) {
        gated.push_back(o[j] * Silu(z[h * dv + j]));
      }
    }
    y.push_back(Multiply(out_proj, gated));
  }
  return y;
}

Rows Moe(const model::Checkpoint& checkpoint, const Weights& weights,
         const std::string& prefix, int layer, const Rows& x,
         ReferenceGate* gate) {
  const ModelConfig& config = checkpoint.config();
  const size_t k = config.num_experts_per_tok;
  const Rows router = weights.Matrix(prefix + "gate.weight");
  const std::string shared_prefix = prefix + "shared_expert.";
  const Rows shared_gate = weights.Matrix(shared_prefix + "gate_proj.weight");
  const Rows shared_up = weights.Matrix(shared_prefix + "up_proj.weight");
  const Rows shared_down = weights.Matrix(shared_prefix + "down_proj.weight");
  const Rows scalar_gate = weights.Matrix(prefix + "shared_expert_gate.weight");
  const auto widen = [](const kernels::WeightView& view) {
    Row flat;
    for (int64_t i = 0; i < view.rows * view.cols; ++i) {
      // bf16 is the upper half of a float.
      float value;
      if (view.dtype == kernels::DType::kF32) {
        std::memcpy(&value, static_cast<const char*>(view.data) + 4 * i, 4);
      } else {
        SY_CHECK(view.dtype == kernels::DType::kBF16);
        uint16_t half;
        std::memcpy(&half, static_cast<const char*>(view.data) + 2 * i, 2);
        const uint32_t bits = uint32_t{half} << 16;
        std::memcpy(&value, &bits, 4);
      }
      flat.push_back(value);
    }
    return Weights::Split(flat, view.rows, view.cols);
  };
  struct Expert {
    Rows gate, up, down;
  };
  std::vector<Expert> experts;
  for (int e = 0; e < config.num_experts; ++e) {
    const auto views = checkpoint.FindExpert(layer, e);
    SY_CHECK(views.ok());
    experts.push_back({widen(views->gate_proj), widen(views->up_proj),
                       widen(views->down_proj)});
  }

  Rows y;
  for (const Row& input : x) {
    const Row logits = Multiply(router, input);
    std::vector<int32_t> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](int32_t i, int32_t j) {
      return logits[i] > logits[j];
    });
    double all = 0, chosen = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      const double p = std::exp(logits[ids[i]] - logits[ids[0]]);
      all += p;
      if (i < k) chosen += p;
    }
    ids.resize(k);
    Row w;
    for (int32_t id : ids) {
      w.push_back(std::exp(logits[id] - logits[ids[0]]) /
                  (config.norm_topk_prob ? chosen : all));
    }
    Row out = SwiGlu(shared_gate, shared_up, shared_down, input);
    const double scale = Sigmoid(Dot(scalar_gate[0], input));
    for (double& value : out) value *= scale;
    for (size_t i = 0; i < k; ++i) {
      const Expert& expert = experts[ids[i]];
      Row routed = SwiGlu(expert.gate, expert.up, expert.down, input);
      for (double& value : routed) value *= w[i];
      out = Add(out, routed);
    }
    y.push_back(out);
    gate->logits.push_back(logits);
    gate->experts.push_back(ids);
    gate->weights.push_back(w);
  }
  return y;
}

Rows NormRows(const Rows& x, const Row& w, double eps) {
  Rows y;
  for (const Row& row : x) y.push_back(RmsNorm(row, w, 1, eps));
  return y;
}

void AddTo(const Rows& y, Rows* x) {
  for (size_t t = 0; t < x->size(); ++t) (*x)[t] = Add((*x)[t], y[t]);
}

Rows Embed(const Weights& weights, absl::Span<const int32_t> tokens) {
  const Rows table = weights.Matrix("model.embed_tokens.weight");
  Rows x;
  for (int32_t token : tokens) x.push_back(table[token]);
  return x;
}

Rows LmHead(const ModelConfig& config, const Weights& weights, const Rows& x) {
  const Rows head =
      weights.Matrix(config.tie_word_embeddings ? "model.embed_tokens.weight"
                                                : "lm_head.weight");
  Rows y;
  for (const Row& row : x) y.push_back(Multiply(head, row));
  return y;
}

}  // namespace

ReferenceRun ReferenceModel::Run(absl::Span<const int32_t> tokens) const {
  const Weights weights(checkpoint_);
  const double eps = config_.rms_norm_eps;
  ReferenceRun run;
  Rows x = run.embedding = Embed(weights, tokens);
  for (int i = 0; i < config_.num_hidden_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const Rows mixer_in =
        NormRows(x, weights.Vector(prefix + "input_layernorm.weight"), eps);
    if (config_.layer_types[i] == LayerType::kFullAttention) {
      run.mixer_out.push_back(GatedAttention(config_, weights,
                                             prefix + "self_attn.", mixer_in,
                                             &run.full.emplace_back()));
    } else {
      run.mixer_out.push_back(GatedDeltaNet(config_, weights,
                                            prefix + "linear_attn.", mixer_in,
                                            &run.linear.emplace_back()));
    }
    AddTo(run.mixer_out.back(), &x);
    const Rows ffn_in = NormRows(
        x, weights.Vector(prefix + "post_attention_layernorm.weight"), eps);
    ReferenceGate& gate = run.gate.emplace_back();
    if (config_.is_moe[i]) {
      run.mlp_out.push_back(
          Moe(checkpoint_, weights, prefix + "mlp.", i, ffn_in, &gate));
    } else {
      const Rows gate_proj = weights.Matrix(prefix + "mlp.gate_proj.weight");
      const Rows up_proj = weights.Matrix(prefix + "mlp.up_proj.weight");
      const Rows down_proj = weights.Matrix(prefix + "mlp.down_proj.weight");
      Rows& out = run.mlp_out.emplace_back();
      for (const Row& row : ffn_in) {
        out.push_back(SwiGlu(gate_proj, up_proj, down_proj, row));
      }
    }
    AddTo(run.mlp_out.back(), &x);
    run.layer.push_back(x);
  }
  run.final_hidden = NormRows(x, weights.Vector("model.norm.weight"), eps);
  run.logits = LmHead(config_, weights, run.final_hidden);
  return run;
}

ReferenceMtpRun ReferenceModel::RunMtp(
    const Rows& hidden, absl::Span<const int32_t> next_tokens) const {
  SY_CHECK(hidden.size() == next_tokens.size());
  const Weights weights(checkpoint_);
  const double eps = config_.rms_norm_eps;
  const Rows embedded =
      NormRows(Embed(weights, next_tokens),
               weights.Vector("mtp.pre_fc_norm_embedding.weight"), eps);
  const Rows previous =
      NormRows(hidden, weights.Vector("mtp.pre_fc_norm_hidden.weight"), eps);
  const Rows fc = weights.Matrix("mtp.fc.weight");
  Rows x;
  for (size_t t = 0; t < hidden.size(); ++t) {
    Row joined = embedded[t];
    joined.insert(joined.end(), previous[t].begin(), previous[t].end());
    x.push_back(Multiply(fc, joined));
  }
  ReferenceMtpRun run;
  const std::string prefix = "mtp.layers.0.";
  AddTo(GatedAttention(
            config_, weights, prefix + "self_attn.",
            NormRows(x, weights.Vector(prefix + "input_layernorm.weight"), eps),
            &run.cache),
        &x);
  ReferenceGate gate;
  AddTo(Moe(checkpoint_, weights, prefix + "mlp.", config_.num_hidden_layers,
            NormRows(x,
                     weights.Vector(prefix + "post_attention_layernorm.weight"),
                     eps),
            &gate),
        &x);
  run.hidden = NormRows(x, weights.Vector("mtp.norm.weight"), eps);
  run.logits = LmHead(config_, weights, run.hidden);
  return run;
}

}  // namespace switchyard::testing
