// Experts whose weights are matrices of numbers as they are: rows stay floats
// (bf16, f16, f32), or are rounded to bf16 once, and the inner activations
// again by whoever computed them (kBF16Dot).

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "experts/expert_arithmetic.h"
#include "experts/expert_ffn.h"

namespace switchyard::experts {
namespace {

// 64 rows of x are 512 KiB at H = 2048: they stay in L2 while a block of
// weights goes by, and 64 uses of a weight are enough to pay for its read from
// memory.
constexpr int64_t kUnitRows = 64;
constexpr int64_t kWaveRows = 512;
// Weights of one task at 80B sizes in bf16: 2 * 32 * 2048 * 2 = 256 KiB and
// 128 * 512 * 2 = 128 KiB. Small enough that one token's ten experts give every
// core some, big enough to outweigh the hand-out.
constexpr int64_t kInnerColumnsPerTask = 32;
constexpr int64_t kOutputColumnsPerTask = 128;

// Floats below which it is not worth sharing out their rounding.
constexpr int64_t kMinFloatsPerTask = int64_t{16} * 1024;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A unit, or a part of it, in the wave.
template <typename Value>
struct Part {
  ExpertUnit unit;
  int64_t wave_row;  // first of its rows in the wave's scratch
  const Value* x;    // [rows, H]: in the batch if its rows are consecutive

  bool consecutive() const {
    return unit.rows.back() - unit.rows.front() + 1 == rows();
  }
  int64_t rows() const { return static_cast<int64_t>(unit.rows.size()); }
};

// Value: float or, of bf16, uint16_t.
template <typename Value>
class PlainArithmetic final : public ExpertArithmetic {
 public:
  PlainArithmetic(const model::ModelConfig& config,
                  const kernels::KernelTable& kernels, ComputePool* pool)
      : hidden_(config.hidden_size),
        inner_size_(config.moe_intermediate_size),
        kernels_(kernels),
        pool_(*pool),
        gathered_(kWaveRows * hidden_),
        inner_(kWaveRows * inner_size_) {
    if constexpr (std::is_same_v<Value, float>) {
      scratch_.resize(kWaveRows * inner_size_);
    }
  }

  void Compute(const ExpertBatch& batch, absl::Span<const ExpertUnit> units,
               float* outputs) override {
    const Value* const x = RowsOf(batch);
    ForEachWave(
        units, kUnitRows, kWaveRows,
        [&](const ExpertUnit& unit, int64_t wave_row) {
          parts_.push_back({unit, wave_row, nullptr});
        },
        [&] {
          Gather(x);
          ComputeInner();
          ComputeOutputs(outputs);
          parts_.clear();
        });
  }

 private:
  // The batch's rows [R, H], rounded here unless it brings them so.
  const Value* RowsOf(const ExpertBatch& batch);
  void Gather(const Value* x);
  void ComputeInner();
  void ComputeOutputs(float* outputs);

  const int64_t hidden_;      // H
  const int64_t inner_size_;  // I
  const kernels::KernelTable& kernels_;
  ComputePool& pool_;

  std::vector<Value> rows_;  // [R, H] of the batch, if rounded here
  // Of the wave in work.
  std::vector<Part<Value>> parts_;
  std::vector<Value> gathered_;  // [kWaveRows, H]
  std::vector<Value> inner_;     // [kWaveRows, I]
  std::vector<float> scratch_;   // [kWaveRows, I], of floats only
};

template <typename Value>
const Value* PlainArithmetic<Value>::RowsOf(const ExpertBatch& batch) {
  if constexpr (std::is_same_v<Value, float>) {
    return batch.rows.data();
  } else {
    if (batch.rounded != nullptr) return batch.rounded;
    rows_.resize(static_cast<size_t>(batch.num_rows * hidden_));
    pool_.ParallelFor(
        batch.num_rows, std::max<int64_t>(1, kMinFloatsPerTask / hidden_),
        [&](int64_t begin, int64_t end) {
          kernels_.round_to_bf16(batch.rows.data() + begin * hidden_,
                                 (end - begin) * hidden_,
                                 rows_.data() + begin * hidden_);
        });
    return rows_.data();
  }
}

template <typename Value>
void PlainArithmetic<Value>::Gather(const Value* x) {
  std::vector<const Part<Value>*> scattered;
  for (Part<Value>& part : parts_) {
    if (part.consecutive()) {
      part.x = x + part.unit.rows.front() * hidden_;
    } else {
      part.x = gathered_.data() + part.wave_row * hidden_;
      scattered.push_back(&part);
    }
  }
  pool_.ParallelFor(
      static_cast<int64_t>(scattered.size()), 1,
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          Value* to = gathered_.data() + scattered[i]->wave_row * hidden_;
          for (int32_t row : scattered[i]->unit.rows) {
            std::memcpy(to, x + row * hidden_, hidden_ * sizeof(Value));
            to += hidden_;
          }
        }
      });
}

template <typename Value>
void PlainArithmetic<Value>::ComputeInner() {
  const int64_t tasks = CeilDiv(inner_size_, kInnerColumnsPerTask);
  pool_.ParallelFor(
      static_cast<int64_t>(parts_.size()) * tasks, 1,
      [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const Part<Value>& part = parts_[task / tasks];
          const int64_t first = task % tasks * kInnerColumnsPerTask;
          const int64_t last =
              std::min(first + kInnerColumnsPerTask, inner_size_);
          Value* const inner = inner_.data() + part.wave_row * inner_size_;
          if constexpr (std::is_same_v<Value, float>) {
            ExpertInner(kernels_, *part.unit.weights, first, last, part.x,
                        hidden_, part.rows(), inner,
                        scratch_.data() + part.wave_row * inner_size_);
          } else {
            Bf16ExpertInner(kernels_, *part.unit.weights, first, last, part.x,
                            hidden_, part.rows(), inner);
          }
        }
      });
}

template <typename Value>
void PlainArithmetic<Value>::ComputeOutputs(float* outputs) {
  const int64_t tasks = CeilDiv(hidden_, kOutputColumnsPerTask);
  pool_.ParallelFor(
      static_cast<int64_t>(parts_.size()) * tasks, 1,
      [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const Part<Value>& part = parts_[task / tasks];
          const int64_t first = task % tasks * kOutputColumnsPerTask;
          const int64_t last = std::min(first + kOutputColumnsPerTask, hidden_);
          const Value* const inner =
              inner_.data() + part.wave_row * inner_size_;
          float* const y = outputs + part.unit.output_row * hidden_;
          if constexpr (std::is_same_v<Value, float>) {
            ExpertOutput(kernels_, *part.unit.weights, first, last, inner,
                         part.rows(), y);
          } else {
            Bf16ExpertOutput(kernels_, *part.unit.weights, first, last, inner,
                             part.rows(), y);
          }
        }
      });
}

}  // namespace

std::unique_ptr<ExpertArithmetic> NewPlainArithmetic(
    const model::ModelConfig& config, const kernels::KernelTable& kernels,
    ComputePool* pool) {
  return std::make_unique<PlainArithmetic<float>>(config, kernels, pool);
}

std::unique_ptr<ExpertArithmetic> NewBf16Arithmetic(
    const model::ModelConfig& config, const kernels::KernelTable& kernels,
    ComputePool* pool) {
  return std::make_unique<PlainArithmetic<uint16_t>>(config, kernels, pool);
}

}  // namespace switchyard::experts
