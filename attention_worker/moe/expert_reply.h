// A holder's outputs as they came: floats in memory, or bytes in the pieces of
// a message.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_REPLY_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_REPLY_H_

#include <cstddef>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/buffer_pool.h"
#include "base/byte_pieces.h"

namespace switchyard::attention_worker {

// Rows of H floats: run after run, row after row within a run, as
// experts::ExpertEngine::Compute writes them. Movable. Unsynchronised.
class ExpertReply {
 public:
  ExpertReply() = default;
  // `outputs` holds nothing but floats.
  explicit ExpertReply(PooledBuffer outputs);
  // Little-endian floats. REQUIRES: a multiple of 4 bytes.
  explicit ExpertReply(BytePieces outputs);

  size_t num_floats() const;

  // That the holder says it took to compute them.
  absl::Duration compute_time() const { return compute_time_; }
  void set_compute_time(absl::Duration time) { compute_time_ = time; }

  // All of them in one piece, valid as long as this. Copied into memory of
  // `pool`, the first time, if they came in several or askew.
  absl::Span<const float> Outputs(BufferPool* pool);

 private:
  PooledBuffer floats_;
  BytePieces bytes_;  // empty once copied
  absl::Duration compute_time_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_REPLY_H_
