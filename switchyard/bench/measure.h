// Times steps of a model: prompts being read, and tokens being generated.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_MEASURE_H_
#define SWITCHYARD_SWITCHYARD_BENCH_MEASURE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "attention_worker/layers/step_timer.h"
#include "switchyard/bench/accounting.h"
#include "switchyard/bench/bench_model.h"

namespace switchyard::bench {

enum class Phase { kDecode, kPrefill };

struct Repetition {
  double seconds = 0;
  // Sums to `seconds`.
  std::array<double, attention_worker::kNumStepParts> parts = {};
  // The mean of just before and just after.
  MachineLimits limits;
};

// Some repetitions of the same work.
struct Measurement {
  Phase phase = Phase::kDecode;
  int64_t batch = 1;            // sequences; 1 for prefill
  int64_t context = 0;          // tokens of each sequence before; 0 for prefill
  int64_t tokens = 0;           // a repetition's, of all sequences together
  int64_t steps = 0;            // a repetition's
  int64_t dispatches = 0;       // a repetition's: layers with experts
  double distinct_experts = 0;  // of a dispatch
  StepCost cost = {};           // a repetition's
  int64_t state_bytes = 0;      // of the sequences' states, at the end
  int64_t resident_bytes = 0;   // of this process, with them
  std::vector<Repetition> repetitions;  // as they came

  // The repetition whose time is the median (of two, the slower).
  const Repetition& Median() const;
  double TokensPerSecond(const Repetition& repetition) const;
  double MinTokensPerSecond() const;
  double MaxTokensPerSecond() const;
  // The median of the repetitions' own shares of their roofline.
  double RooflineShare() const;
};

struct MeasureOptions {
  int repeat = 5;
  int64_t decode_steps = 32;     // of a repetition
  int64_t prefill_chunk = 1024;  // prompt tokens of a step
  // No further repetition begins after so many seconds of one measurement.
  double max_seconds = 60;
  // What the machine can do at this moment, while nothing else runs here: on a
  // machine with neighbours that changes within seconds.
  std::function<MachineLimits()> measure_limits;
};

// `batch` sequences generate tokens, each its own samples, after `context`
// tokens that they never read: their states hold plausible values. Two steps
// more come first. The same in every run. Errors are those of steps and states.
absl::StatusOr<Measurement> MeasureDecode(BenchModel* model, int64_t batch,
                                          int64_t context,
                                          const MeasureOptions& options);

// One sequence reads a prompt of random tokens, and samples one token. Each
// repetition starts anew; one more comes first.
absl::StatusOr<Measurement> MeasurePrefill(BenchModel* model,
                                           int64_t prompt_tokens,
                                           const MeasureOptions& options);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_MEASURE_H_
