// What a step must read and compute, from the model's geometry and the dtypes
// of its tensors: what a measured time is compared with.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_ACCOUNTING_H_
#define SWITCHYARD_SWITCHYARD_BENCH_ACCOUNTING_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "attention_worker/layers/step_timer.h"
#include "kernels/kv_rows.h"
#include "kernels/matrix.h"
#include "model/checkpoint.h"
#include "model/config.h"

namespace switchyard::bench {

// Operations are counted as two for a multiply-add; those of elementwise work
// (norms, activations, softmax) are not counted.
struct Cost {
  double weight_bytes = 0;        // read once each
  double state_bytes = 0;         // sequences' states, read once each
  double integer_operations = 0;  // on quantised weights
  double float_operations = 0;    // on other weights, and on states
  double bf16_operations = 0;     // on weights that take bf16 activations

  double bytes() const { return weight_bytes + state_bytes; }
  double operations() const {
    return integer_operations + float_operations + bf16_operations;
  }
  Cost& operator+=(const Cost& other);
};

using StepCost = std::array<Cost, attention_worker::kNumStepParts>;

Cost Total(const StepCost& cost);

// What this machine can do in a second.
struct MachineLimits {
  double read_bytes = 0;
  double integer_operations = 0;
  double float_operations = 0;
  double bf16_operations = 0;
};

// The shortest time in seconds in which a machine can do that: part after part,
// and in each, reading and computing at the same time.
double RooflineSeconds(const StepCost& cost, const MachineLimits& limits);

// One sequence's share of a step.
struct SequenceLoad {
  int64_t context = 0;  // tokens before this step
  int64_t tokens = 0;   // of this step
};

struct StepLoad {
  std::vector<SequenceLoad> sequences;
  int64_t logits_rows = 0;
  // (layer, expert) pairs that got a row, over all layers.
  double distinct_experts = 0;
};

// (layer, expert) pairs that `tokens` tokens are expected to need, if the gate
// chose at random.
double ExpectedDistinctExperts(const model::ModelConfig& config,
                               int64_t tokens);

// Immutable.
class Accounting {
 public:
  using DTypeOf = absl::FunctionRef<absl::StatusOr<kernels::DType>(
      absl::string_view tensor_name)>;

  // As the checkpoint's tensors are. Errors are the checkpoint's.
  static absl::StatusOr<Accounting> ForCheckpoint(
      const model::Checkpoint& checkpoint,
      kernels::KvDType kv_dtype = kernels::KvDType::kF32);
  // `dtype_of` is asked for every matrix that is not a routed expert's;
  // NOT_FOUND for lm_head.weight: the embedding is used for it.
  static absl::StatusOr<Accounting> ForConfig(
      const model::ModelConfig& config, kernels::DType expert_dtype,
      DTypeOf dtype_of, kernels::KvDType kv_dtype = kernels::KvDType::kF32);

  StepCost CostOf(const StepLoad& load) const;

  // Weights that one token is multiplied with, and their bytes; lm_head
  // included, the embedding's row not.
  int64_t active_weights() const { return active_weights_; }
  double active_bytes() const;

 private:
  // Weights of one part that every step reads and every token multiplies.
  struct Dense {
    double bytes = 0;
    double quantised_weights = 0;
    double bf16_weights = 0;  // that take bf16 activations
    double other_weights = 0;
  };

  Accounting() = default;
  void AddMatrix(attention_worker::StepPart part, kernels::DType dtype,
                 int64_t rows, int64_t cols);

  model::ModelConfig config_;
  std::array<Dense, attention_worker::kNumStepParts> dense_;
  kernels::DType expert_dtype_ = kernels::DType::kF32;
  kernels::KvDType kv_dtype_ = kernels::KvDType::kF32;
  double embedding_row_bytes_ = 0;
  double expert_bytes_ = 0;    // of one
  double expert_weights_ = 0;  // of one
  int64_t moe_layers_ = 0;
  int64_t linear_layers_ = 0;
  int64_t full_layers_ = 0;
  int64_t active_weights_ = 0;
};

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_ACCOUNTING_H_
