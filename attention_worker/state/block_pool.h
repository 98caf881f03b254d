// Blocks of one size, carved from one reservation of address space.
//
// A block that is given back stays warm (in memory) for the next taker until
// somebody else needs its bytes.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_BLOCK_POOL_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_BLOCK_POOL_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "attention_worker/state/reserved_floats.h"

namespace switchyard::attention_worker {

// Not thread-safe.
class BlockPool {
 public:
  // Room for `max_blocks` blocks of `block_floats` floats each.
  // RESOURCE_EXHAUSTED: no such address range (ReservedFloats::Create).
  static absl::StatusOr<BlockPool> Create(int64_t block_floats,
                                          int64_t max_blocks);

  int64_t block_bytes() const;
  // Blocks in use, and blocks in memory but not in use.
  int64_t used_blocks() const { return used_; }
  int64_t warm_blocks() const { return static_cast<int64_t>(warm_.size()); }

  // A block with anything in it. Null if all are in use.
  float* Take();
  // REQUIRES: `block` came from Take() and was not given back since.
  void Give(float* block);

  // Gives the memory of one warm block back to the system. False if there is
  // none.
  bool ReleaseOneWarm();

 private:
  BlockPool(int64_t block_floats, int64_t max_blocks, ReservedFloats memory);

  int64_t block_floats_;
  int64_t max_blocks_;
  ReservedFloats memory_;
  int64_t fresh_ = 0;  // blocks from here on were never taken
  int64_t used_ = 0;
  std::vector<float*> warm_;  // given back, still in memory
  std::vector<float*> cold_;  // given back, and their memory too
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_BLOCK_POOL_H_
