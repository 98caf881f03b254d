// Memory for what lives within one layer of one step.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_SCRATCH_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_SCRATCH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"

namespace switchyard::attention_worker {

// A stack of float arrays that keeps its memory from layer to layer and from
// step to step: its size is the most that any layer of any step so far has
// needed. Belongs to the step thread.
class Scratch {
 public:
  // Everything taken while a frame lives goes back when it dies. Frames nest.
  class Frame {
   public:
    explicit Frame(Scratch* scratch)
        : scratch_(scratch),
          block_(scratch->block_),
          used_(scratch->used_),
          taken_(scratch->taken_) {}
    ~Frame() { scratch_->Return(*this); }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Scratch* const scratch_;
    friend class Scratch;
    const size_t block_;
    const size_t used_;
    const size_t taken_;
  };

  // `floats` values, not initialised, on a cache line's boundary. Valid until
  // the innermost frame of now ends.
  float* Floats(int64_t floats);
  // The same, for quantised activations.
  int8_t* Bytes(int64_t bytes);
  int32_t* Ints(int64_t ints);

  int64_t allocated_bytes() const;

 private:
  void Return(const Frame& frame);

  std::vector<AlignedBuffer> blocks_;
  size_t block_ = 0;  // the block that the next array comes from
  size_t used_ = 0;   // floats of it that are taken
  size_t taken_ = 0;  // floats of all blocks: without the ends left unused
  size_t most_ = 0;   // that were ever taken at a time
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_SCRATCH_H_
