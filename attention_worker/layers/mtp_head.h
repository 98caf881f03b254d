// The multi-token prediction head: one more layer that guesses the token after
// next, from a hidden state of the model and the next token. What it guesses
// never changes the text, only how fast it comes.
//
// Here is its forward pass; who drafts with it, and what becomes of drafts, is
// decided above.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_MTP_HEAD_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_MTP_HEAD_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/state/sequence_state.h"

namespace switchyard::attention_worker {

// The next pairs of one sequence: pair i is the hidden state h_i of token i
// (after model.norm, as in ChunkResult::hidden; of a chained draft, the head's
// own output) and token i + 1.
struct MtpChunk {
  // With pages for the pairs; the first goes to state->num_mtp_pairs. Not
  // owned.
  SequenceState* state = nullptr;
  absl::Span<const float> hidden;          // [pairs, H]
  absl::Span<const int32_t> next_tokens;   // [pairs]; >= 1, each in [0, V)
  LogitsOf logits = LogitsOf::kLastToken;  // of token i + 2
  absl::Time deadline = absl::InfiniteFuture();  // for missing experts
};

struct MtpResult {
  // Not OK: as ChunkResult::status, but the state is as good as before: the
  // pairs count as not read.
  absl::Status status;
  std::vector<float> hidden;  // after mtp.norm: [pairs, H]
  std::vector<float> logits;  // [0 or 1 or pairs, V]
};

class MtpHead {
 public:
  // As ModelRunner::Create, with the same options and the runner made of them
  // (not owned; outlives this). NOT_FOUND: this checkpoint has no mtp.* tensors
  // (Coder-Next).
  static absl::StatusOr<std::unique_ptr<MtpHead>> Create(
      ModelRunner::Options options, const ModelRunner* runner);
  virtual ~MtpHead() = default;

  // One step, with the promises of ModelRunner::Step. Pairs go to positions
  // state->num_mtp_pairs and following, which moves on; to drop entries that
  // rest on drafts, set it back and run the true pairs. One caller at a time,
  // and not beside a ModelRunner's step with the same pool.
  // REQUIRES: states of a shape that drafts.
  virtual std::vector<MtpResult> Step(absl::Span<const MtpChunk> chunks) = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_MTP_HEAD_H_
