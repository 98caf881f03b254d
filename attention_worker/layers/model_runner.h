// The hybrid stack, one step: tokens of several sequences in, logits out.
//
// Above: core/engine.h decides what goes into a step.
// Below: one file per kind of layer; moe/ sends rows to experts.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_MODEL_RUNNER_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_MODEL_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/layers/probe.h"
#include "attention_worker/layers/step_timer.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/state/sequence_state.h"
#include "base/compute_pool.h"
#include "kernels/kernel_table.h"
#include "kernels/kv_rows.h"
#include "kernels/matrix.h"
#include "model/checkpoint.h"
#include "model/weight_copies.h"

namespace switchyard::attention_worker {

enum class LogitsOf { kNothing, kLastToken, kEveryToken };

// Where a step leaves a copy of a sequence's fixed state on its way.
struct SnapshotPoint {
  int64_t after_tokens = 0;  // of the chunk: [1, its size]
  float* fixed = nullptr;    // StateShape::FixedFloats(), not owned
};

// The next tokens of one sequence.
struct SequenceChunk {
  // kClean; with pages for the tokens (SequenceState::TryGrow). Not owned.
  SequenceState* state = nullptr;
  absl::Span<const int32_t> tokens;  // >= 1, each in [0, V)
  LogitsOf logits = LogitsOf::kLastToken;
  absl::Time deadline = absl::InfiniteFuture();  // for missing experts
  bool want_hidden = false;  // fill ChunkResult::hidden, what an MtpHead reads
  // The last so many tokens may be wrong: [0, max_draft_tokens], less than all.
  // The state moves on by the others; those that turn out right are then
  // SequenceState::AcceptDrafts'ed. Not together with snapshots behind the
  // others.
  int64_t provisional_tokens = 0;
  absl::Span<const SnapshotPoint> snapshots = {};  // ascending
};

struct ChunkResult {
  // Not OK: the chunk's experts could not be had before the deadline; the state
  // is then kTorn. Other sequences of the step are not affected.
  absl::Status status;
  std::vector<float> logits;  // [0 or 1 or tokens, V]
  std::vector<float> hidden;  // after model.norm: [tokens if wanted, else 0, H]
};

class ModelRunner {
 public:
  struct Options {
    const model::Checkpoint* checkpoint = nullptr;  // not owned; outlives this
    ExpertDispatcher* dispatcher = nullptr;         // not owned; outlives this
    ComputePool* pool = nullptr;                    // not owned; outlives this
    Probe probe = nullptr;                          // null: none
    StepTimer* timer = nullptr;                     // null: none; not owned
    // Null: the process's (kernels::Kernels()). For tests, not owned.
    const kernels::KernelTable* kernels = nullptr;
    // Called during Create with bytes of weights read and in all.
    std::function<void(int64_t done, int64_t total)> progress = nullptr;
    model::WeightPlacement weights = model::WeightPlacement::kAuto;
    // Of a step and sequence (SequenceChunk::provisional_tokens); 0: none.
    int64_t max_draft_tokens = 0;
    kernels::KvDType kv_dtype = kernels::KvDType::kF32;  // of the KV cache
  };

  // Reads every weight once but the experts'. Holds views into the checkpoint's
  // mapped files or copies, as told, and float copies of the small vectors
  // (norms, convolution taps, A_log, dt_bias: about 5 MiB at 80B). NOT_FOUND,
  // INVALID_ARGUMENT: a tensor is missing or has another shape than config.json
  // says. DATA_LOSS: a tensor holds a NaN or an infinity, or has another
  // checksum. All name it. RESOURCE_EXHAUSTED: no memory for copies.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Create(Options options);
  virtual ~ModelRunner() = default;

  // What an MtpHead shares with the model. Lives as long as this.
  struct SharedWeights {
    kernels::WeightView embed_tokens;  // [V, H]
    kernels::WeightView lm_head;       // [V, H]
  };

  // One step. A token's bits do not depend on how tokens are cut into chunks,
  // nor on what else is in the step, nor on which were provisional. On return
  // every state with an OK status has moved on by its chunk, without its
  // provisional tokens. One caller at a time (the step thread).
  virtual std::vector<ChunkResult> Step(
      absl::Span<const SequenceChunk> chunks) = 0;

  // The logits [V] of a state's last token again, from its hidden state.
  // REQUIRES: kClean, num_tokens >= 1.
  virtual std::vector<float> LastLogits(SequenceState* state) = 0;

  // Takes what is pending into the recurrent states, as the next step would.
  // One caller at a time, and not beside Step().
  virtual void Settle(absl::Span<SequenceState* const> states) = 0;

  virtual const StateShape& state_shape() const = 0;
  virtual SharedWeights shared_weights() const = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_MODEL_RUNNER_H_
