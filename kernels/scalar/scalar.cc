// The reference bodies: each is its contract (kernel_contracts.h) written out.
// Compiled for the plainest CPU; std::fma is then a call, slow but exact. The
// other bodies are tested against these, bit by bit.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/exp_polynomial.h"
#include "kernels/half.h"
#include "kernels/kernel_contracts.h"
#include "kernels/math.h"
#include "kernels/scalar/bf16.h"
#include "kernels/scalar/quantized.h"

namespace switchyard::kernels {
namespace {

// A sum in 16 lanes, in the order that kernel_contracts.h fixes.
class LaneSum {
 public:
  // Adds a * b, the product of elements i of the sum's inputs.
  void AddProduct(int64_t i, float a, float b) {
    float& lane = lanes_[i % kLanes];
    lane = std::fma(a, b, lane);
  }

  void Add(int64_t i, float a) { lanes_[i % kLanes] += a; }

  float Total() const {
    float tree[kLanes];
    std::memcpy(tree, lanes_, sizeof(tree));
    for (int width = kLanes / 2; width >= 1; width /= 2) {
      for (int l = 0; l < width; ++l) tree[l] += tree[l + width];
    }
    return tree[0];
  }

 private:
  static constexpr int kLanes = 16;
  float lanes_[kLanes] = {};
};

float FloatOfBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float WeightAt(const void* data, DType dtype, int64_t index) {
  const char* const bytes = static_cast<const char*>(data) +
                            index * static_cast<int64_t>(DTypeBytes(dtype));
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return dtype == DType::kF16 ? FloatOfHalf(bits)
                              : FloatOfBits(static_cast<uint32_t>(bits) << 16);
}

void Matmul(const WeightView& weight, int64_t row_begin, int64_t row_end,
            const float* x, int64_t x_stride, int64_t tokens, float* y,
            int64_t y_stride) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = row_begin; r < row_end; ++r) {
      LaneSum sum;
      for (int64_t c = 0; c < weight.cols; ++c) {
        sum.AddProduct(c,
                       WeightAt(weight.data, weight.dtype, r * weight.cols + c),
                       x[t * x_stride + c]);
      }
      y[t * y_stride + (r - row_begin)] = sum.Total();
    }
  }
}

void Widen(const void* data, DType dtype, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = WeightAt(data, dtype, i);
}

float Dot(const float* a, const float* b, int64_t n) {
  LaneSum sum;
  for (int64_t i = 0; i < n; ++i) sum.AddProduct(i, a[i], b[i]);
  return sum.Total();
}

void Axpy(float alpha, const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = std::fma(alpha, x[i], y[i]);
}

// Calls body(j, row) with each of n rows of the cache, as floats.
template <typename Body>
void ForEachKvRow(const KvRows& rows, int64_t n, int64_t dim, Body body) {
  const char* const data = static_cast<const char*>(rows.data);
  std::vector<float> row(static_cast<size_t>(dim));
  for (int64_t j = 0; j < n; ++j) {
    DecodeKvRow(rows.dtype, data + j * KvRowBytes(rows.dtype, dim), dim,
                row.data());
    body(j, row.data());
  }
}

void AttentionScores(const float* q, int64_t queries, const KvRows& keys,
                     int64_t n, int64_t dim, float scale, float* scores,
                     int64_t score_stride) {
  ForEachKvRow(keys, n, dim, [&](int64_t j, const float* key) {
    for (int64_t h = 0; h < queries; ++h) {
      scores[h * score_stride + j] = scale * Dot(q + h * dim, key, dim);
    }
  });
}

void AttentionValues(const float* weights, int64_t weight_stride,
                     int64_t queries, const KvRows& values, int64_t n,
                     int64_t dim, float* y) {
  ForEachKvRow(values, n, dim, [&](int64_t j, const float* value) {
    for (int64_t h = 0; h < queries; ++h) {
      Axpy(weights[h * weight_stride + j], value, y + h * dim, dim);
    }
  });
}

void RmsNorm(const float* x, const float* w, float offset, float eps, int64_t n,
             float* y) {
  const float mean = Dot(x, x, n) / static_cast<float>(n);
  const float factor = 1.0f / std::sqrt(mean + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] * factor) * (offset + w[i]);
}

void L2Norm(const float* x, float eps, float scale, int64_t n, float* y) {
  const float factor = 1.0f / std::sqrt(Dot(x, x, n) + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] * factor) * scale;
}

void SiluMul(const float* gate, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = Silu(gate[i]) * up[i];
}

void SigmoidMul(const float* x, const float* gate, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * Sigmoid(gate[i]);
}

float ExpSubMax(float* x, int64_t n, float* total) {
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) max = x[i] > max ? x[i] : max;
  LaneSum sum;
  for (int64_t i = 0; i < n; ++i) {
    x[i] = Exp(x[i] - max);
    sum.Add(i, x[i]);
  }
  *total = sum.Total();
  return max;
}

void Rope(float* x, const float* cos, const float* sin, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float first = x[i];
    const float second = x[i + n];
    x[i] = std::fma(first, cos[i], -(second * sin[i]));
    x[i + n] = std::fma(second, cos[i], first * sin[i]);
  }
}

void ConvStep(const float* w, int64_t taps, const float* x, float* tail,
              int64_t channels, float* y) {
  for (int64_t c = 0; c < channels; ++c) {
    const float newest = x[c];
    float sum = 0;
    for (int64_t j = 0; j < taps - 1; ++j) {
      sum = std::fma(w[c * taps + j], tail[j * channels + c], sum);
    }
    sum = std::fma(w[c * taps + taps - 1], newest, sum);
    for (int64_t j = 0; j + 2 < taps; ++j) {
      tail[j * channels + c] = tail[(j + 1) * channels + c];
    }
    if (taps > 1) tail[(taps - 2) * channels + c] = newest;
    y[c] = Silu(sum);
  }
}

void DeltaRuleStep(const float* q, const float* k, const float* v, float decay,
                   float beta, int64_t dk, int64_t columns, int64_t stride,
                   float* S, float* out) {
  for (int64_t j = 0; j < columns; ++j) {
    float* const column = S + j;
    float prediction = 0;
    for (int64_t i = 0; i < dk; ++i) {
      column[i * stride] *= decay;
      prediction = std::fma(k[i], column[i * stride], prediction);
    }
    const float u = beta * (v[j] - prediction);
    float read = 0;
    for (int64_t i = 0; i < dk; ++i) {
      column[i * stride] = std::fma(k[i], u, column[i * stride]);
      read = std::fma(q[i], column[i * stride], read);
    }
    out[j] = read;
  }
}

#include "kernels/softmax_weights.inc"

}  // namespace

constexpr KernelTable kScalarKernels = {
    .name = "scalar",
    .matmul = &Matmul,
    .quantize_block = &ScalarQuantizeBlock,
    .quantize_row = &ScalarQuantizeRow,
    .quantized_matmul = &ScalarQuantizedMatmul,
    .round_to_bf16 = &ScalarRoundToBf16,
    .bf16_matmul = &ScalarBf16Matmul,
    .widen = &Widen,
    .dot = &Dot,
    .axpy = &Axpy,
    .attention_scores = &AttentionScores,
    .attention_values = &AttentionValues,
    .rms_norm = &RmsNorm,
    .l2_norm = &L2Norm,
    .silu_mul = &SiluMul,
    .sigmoid_mul = &SigmoidMul,
    .exp_sub_max = &ExpSubMax,
    .softmax_weights = &SoftmaxWeights,
    .rope = &Rope,
    .conv_step = &ConvStep,
    .delta_rule_step = &DeltaRuleStep,
};

}  // namespace switchyard::kernels
