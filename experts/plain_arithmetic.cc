// Experts whose weights are bf16, f16 or f32: rows stay floats.

#include <algorithm>
#include <cstring>
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

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A unit, or a part of it, in the wave.
struct Part {
  ExpertUnit unit;
  int64_t wave_row;  // first of its rows in the wave's scratch
  const float* x;    // [rows, H]: in the batch if its rows are consecutive

  bool consecutive() const {
    return unit.rows.back() - unit.rows.front() + 1 == rows();
  }
  int64_t rows() const { return static_cast<int64_t>(unit.rows.size()); }
};

class PlainArithmetic final : public ExpertArithmetic {
 public:
  PlainArithmetic(const model::ModelConfig& config,
                  const kernels::KernelTable& kernels, ComputePool* pool)
      : hidden_(config.hidden_size),
        inner_size_(config.moe_intermediate_size),
        kernels_(kernels),
        pool_(*pool),
        gathered_(kWaveRows * hidden_),
        inner_(kWaveRows * inner_size_),
        scratch_(kWaveRows * inner_size_) {}

  void Compute(const ExpertBatch& batch, absl::Span<const ExpertUnit> units,
               float* outputs) override {
    ForEachWave(
        units, kUnitRows, kWaveRows,
        [&](const ExpertUnit& unit, int64_t wave_row) {
          parts_.push_back({unit, wave_row, nullptr});
        },
        [&] {
          ComputeWave(batch, outputs);
          parts_.clear();
        });
  }

 private:
  void ComputeWave(const ExpertBatch& batch, float* outputs);
  void Gather(const ExpertBatch& batch);

  const int64_t hidden_;      // H
  const int64_t inner_size_;  // I
  const kernels::KernelTable& kernels_;
  ComputePool& pool_;

  // Of the wave in work.
  std::vector<Part> parts_;
  std::vector<float> gathered_;  // [kWaveRows, H]
  std::vector<float> inner_;     // [kWaveRows, I]
  std::vector<float> scratch_;   // [kWaveRows, I]
};

void PlainArithmetic::Gather(const ExpertBatch& batch) {
  std::vector<const Part*> scattered;
  for (Part& part : parts_) {
    if (part.consecutive()) {
      part.x = batch.rows.data() + part.unit.rows.front() * hidden_;
    } else {
      part.x = gathered_.data() + part.wave_row * hidden_;
      scattered.push_back(&part);
    }
  }
  pool_.ParallelFor(static_cast<int64_t>(scattered.size()), 1,
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        float* to =
                            gathered_.data() + scattered[i]->wave_row * hidden_;
                        for (int32_t row : scattered[i]->unit.rows) {
                          std::memcpy(to, batch.rows.data() + row * hidden_,
                                      hidden_ * sizeof(float));
                          to += hidden_;
                        }
                      }
                    });
}

void PlainArithmetic::ComputeWave(const ExpertBatch& batch, float* outputs) {
  const int64_t num_parts = static_cast<int64_t>(parts_.size());
  Gather(batch);

  const int64_t inner_tasks = CeilDiv(inner_size_, kInnerColumnsPerTask);
  pool_.ParallelFor(
      num_parts * inner_tasks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const Part& part = parts_[task / inner_tasks];
          const int64_t first = task % inner_tasks * kInnerColumnsPerTask;
          ExpertInner(kernels_, *part.unit.weights, first,
                      std::min(first + kInnerColumnsPerTask, inner_size_),
                      part.x, hidden_, part.rows(),
                      inner_.data() + part.wave_row * inner_size_,
                      scratch_.data() + part.wave_row * inner_size_);
        }
      });

  const int64_t output_tasks = CeilDiv(hidden_, kOutputColumnsPerTask);
  pool_.ParallelFor(
      num_parts * output_tasks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const Part& part = parts_[task / output_tasks];
          const int64_t first = task % output_tasks * kOutputColumnsPerTask;
          ExpertOutput(kernels_, *part.unit.weights, first,
                       std::min(first + kOutputColumnsPerTask, hidden_),
                       inner_.data() + part.wave_row * inner_size_, part.rows(),
                       outputs + part.unit.output_row * hidden_);
        }
      });
}

}  // namespace

std::unique_ptr<ExpertArithmetic> NewPlainArithmetic(
    const model::ModelConfig& config, const kernels::KernelTable& kernels,
    ComputePool* pool) {
  return std::make_unique<PlainArithmetic>(config, kernels, pool);
}

}  // namespace switchyard::experts
