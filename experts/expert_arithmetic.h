// How an engine's units of work are computed: one class for rows of floats and
// of bf16, one for quantised ones.
//
// Both cut a unit's rows into parts, and take parts in waves of a bounded
// number of rows, so that scratch has a fixed size whatever a peer sends. In a
// wave, three loops over the pool: gather the parts' rows, the first half of
// the FFN by (part, block of I), the second by (part, block of H). No sum
// crosses a task, so the split changes no bit.

#ifndef SWITCHYARD_EXPERTS_EXPERT_ARITHMETIC_H_
#define SWITCHYARD_EXPERTS_EXPERT_ARITHMETIC_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "base/compute_pool.h"
#include "experts/expert_engine.h"
#include "kernels/kernel_table.h"
#include "model/checkpoint.h"
#include "model/config.h"

namespace switchyard::experts {

// All rows of a batch that go through one expert.
struct ExpertUnit {
  const model::ExpertWeights* weights = nullptr;
  absl::Span<const int32_t> rows;  // of the batch, ascending
  int64_t output_row = 0;          // first of its rows in the outputs
};

// Keeps its scratch from one call to the next. One caller at a time.
class ExpertArithmetic {
 public:
  virtual ~ExpertArithmetic() = default;

  // outputs [rows of all units, H]. The engine has checked the batch.
  virtual void Compute(const ExpertBatch& batch,
                       absl::Span<const ExpertUnit> units, float* outputs) = 0;
};

// Nothing is owned; all outlive the result.
std::unique_ptr<ExpertArithmetic> NewPlainArithmetic(
    const model::ModelConfig& config, const kernels::KernelTable& kernels,
    ComputePool* pool);
// Every expert is kBF16Dot.
std::unique_ptr<ExpertArithmetic> NewBf16Arithmetic(
    const model::ModelConfig& config, const kernels::KernelTable& kernels,
    ComputePool* pool);
// Every expert has the same quantised dtype.
std::unique_ptr<ExpertArithmetic> NewQuantizedArithmetic(
    const model::ModelConfig& config, const kernels::KernelTable& kernels,
    ComputePool* pool);

// The units cut into parts of at most `unit_rows` rows, and these handed on in
// waves of at most `wave_rows` in all: `run(part, wave_row)` for each, where
// wave_row counts the wave's rows before it, and `end_wave()` after each wave
// that is not empty. Inlined into its two callers.
template <typename Run, typename EndWave>
void ForEachWave(absl::Span<const ExpertUnit> units, int64_t unit_rows,
                 int64_t wave_rows, Run run, EndWave end_wave) {
  int64_t in_wave = 0;
  for (ExpertUnit unit : units) {
    while (!unit.rows.empty()) {
      const int64_t left = static_cast<int64_t>(unit.rows.size());
      const int64_t count = left < unit_rows ? left : unit_rows;
      if (in_wave + count > wave_rows) {
        end_wave();
        in_wave = 0;
      }
      run(ExpertUnit{unit.weights, unit.rows.first(count), unit.output_row},
          in_wave);
      unit.rows.remove_prefix(count);
      unit.output_row += count;
      in_wave += count;
    }
  }
  if (in_wave > 0) end_wave();
}

}  // namespace switchyard::experts

#endif  // SWITCHYARD_EXPERTS_EXPERT_ARITHMETIC_H_
