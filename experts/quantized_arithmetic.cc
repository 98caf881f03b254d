// Experts whose weights are integers in groups: rows are quantised once, and
// the inner activations again by whoever computed them.

#include <algorithm>
#include <vector>

#include "experts/expert_arithmetic.h"
#include "experts/expert_ffn.h"
#include "experts/quantized_buffer.h"

namespace switchyard::experts {
namespace {

// Rows for which a unit's weights are read together. At H = 2048 they are 590
// KiB, and stay in L2 beside a panel of weights (34 KiB).
constexpr int64_t kUnitRows = 256;
// Rows of all units between two waits of the threads for one another. Their
// scratch is about 3 KiB each.
constexpr int64_t kWaveRows = 4096;
// Weights of one task at 80B sizes in 8 bits: 2 * 64 * 2048 = 272 KiB with the
// scales, and 128 * 512 = 68 KiB. Small enough that one token's ten experts
// give every core some, big enough to outweigh the hand-out.
constexpr int64_t kInnerColumnsPerTask = kernels::kBlockColumns;
constexpr int64_t kOutputColumnsPerTask = 128;
// Floats below which it is not worth sharing out their quantisation.
constexpr int64_t kMinFloatsPerTask = 16 * 1024;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A unit, or a part of it, in the wave.
struct Part {
  ExpertUnit unit;
  int64_t wave_row;          // first of its rows in the wave's scratch
  kernels::QuantizedRows x;  // of the batch if its rows are consecutive there

  bool consecutive() const {
    return unit.rows.back() - unit.rows.front() + 1 == rows();
  }
  int64_t rows() const { return static_cast<int64_t>(unit.rows.size()); }
};

class QuantizedArithmetic final : public ExpertArithmetic {
 public:
  QuantizedArithmetic(const model::ModelConfig& config,
                      const kernels::KernelTable& kernels, ComputePool* pool)
      : hidden_(config.hidden_size),
        inner_size_(config.moe_intermediate_size),
        kernels_(kernels),
        pool_(*pool),
        rows_(hidden_),
        gathered_(hidden_),
        inner_(inner_size_) {}

  void Compute(const ExpertBatch& batch, absl::Span<const ExpertUnit> units,
               float* outputs) override {
    const kernels::QuantizedRows x = Quantized(batch);
    int64_t wave_rows = 0;
    ForEachWave(
        units, kUnitRows, kWaveRows,
        [&](const ExpertUnit& unit, int64_t wave_row) {
          parts_.push_back({unit, wave_row, {}});
          wave_rows = wave_row + parts_.back().rows();
        },
        [&] {
          inner_.Reserve(wave_rows);
          Gather(x, wave_rows);
          ComputeInner();
          ComputeOutputs(outputs);
          parts_.clear();
        });
  }

 private:
  // The batch's rows, quantised here unless it brings them so.
  kernels::QuantizedRows Quantized(const ExpertBatch& batch);
  void Gather(const kernels::QuantizedRows& x, int64_t wave_rows);
  void ComputeInner();
  void ComputeOutputs(float* outputs);

  const int64_t hidden_;      // H
  const int64_t inner_size_;  // I
  const kernels::KernelTable& kernels_;
  ComputePool& pool_;

  QuantizedBuffer rows_;  // [R, H], of the batch
  // Of the wave in work.
  std::vector<Part> parts_;
  std::vector<const Part*> scattered_;
  QuantizedBuffer gathered_;  // [wave rows, H]
  QuantizedBuffer inner_;     // [wave rows, I]
};

kernels::QuantizedRows QuantizedArithmetic::Quantized(
    const ExpertBatch& batch) {
  if (batch.quantized.values != nullptr) return batch.quantized;
  rows_.Reserve(batch.num_rows);
  pool_.ParallelFor(
      batch.num_rows, std::max<int64_t>(1, kMinFloatsPerTask / hidden_),
      [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          rows_.Quantize(kernels_, batch.rows.data() + row * hidden_, row, 0,
                         hidden_);
        }
      });
  return rows_.Rows(0);
}

void QuantizedArithmetic::Gather(const kernels::QuantizedRows& x,
                                 int64_t wave_rows) {
  scattered_.clear();
  for (Part& part : parts_) {
    if (part.consecutive()) {
      part.x = RowsFrom(x, part.unit.rows.front());
    } else {
      scattered_.push_back(&part);
    }
  }
  if (scattered_.empty()) return;
  gathered_.Reserve(wave_rows);
  for (Part& part : parts_) {
    if (!part.consecutive()) part.x = gathered_.Rows(part.wave_row);
  }
  pool_.ParallelFor(static_cast<int64_t>(scattered_.size()), 1,
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        int64_t to = scattered_[i]->wave_row;
                        for (int32_t row : scattered_[i]->unit.rows) {
                          gathered_.Copy(x, row, to++);
                        }
                      }
                    });
}

void QuantizedArithmetic::ComputeInner() {
  const int64_t tasks = CeilDiv(inner_size_, kInnerColumnsPerTask);
  pool_.ParallelFor(static_cast<int64_t>(parts_.size()) * tasks, 1,
                    [&](int64_t begin, int64_t end) {
                      for (int64_t task = begin; task < end; ++task) {
                        const Part& part = parts_[task / tasks];
                        const int64_t first =
                            task % tasks * kInnerColumnsPerTask;
                        QuantizedExpertInner(
                            kernels_, *part.unit.weights, first,
                            std::min(first + kInnerColumnsPerTask, inner_size_),
                            part.x, part.rows(), &inner_, part.wave_row);
                      }
                    });
}

void QuantizedArithmetic::ComputeOutputs(float* outputs) {
  const int64_t tasks = CeilDiv(hidden_, kOutputColumnsPerTask);
  pool_.ParallelFor(static_cast<int64_t>(parts_.size()) * tasks, 1,
                    [&](int64_t begin, int64_t end) {
                      for (int64_t task = begin; task < end; ++task) {
                        const Part& part = parts_[task / tasks];
                        const int64_t first =
                            task % tasks * kOutputColumnsPerTask;
                        QuantizedExpertOutput(
                            kernels_, *part.unit.weights, first,
                            std::min(first + kOutputColumnsPerTask, hidden_),
                            inner_.Rows(part.wave_row), part.rows(),
                            outputs + part.unit.output_row * hidden_);
                      }
                    });
}

}  // namespace

std::unique_ptr<ExpertArithmetic> NewQuantizedArithmetic(
    const model::ModelConfig& config, const kernels::KernelTable& kernels,
    ComputePool* pool) {
  return std::make_unique<QuantizedArithmetic>(config, kernels, pool);
}

}  // namespace switchyard::experts
