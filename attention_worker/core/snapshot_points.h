// Where a prompt deserves a snapshot of its state: few places, since each costs
// a fixed part (75 MB at 80B sizes), well chosen, since a hybrid model can go
// on from nowhere else.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_SNAPSHOT_POINTS_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_SNAPSHOT_POINTS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace switchyard::attention_worker {

// No two snapshots are nearer to one another than this: reading so few tokens
// again costs about as much as one step.
inline constexpr int64_t kMinSnapshotGap = 16;

// Token counts in (cached, end], ascending, for a sequence that will read its
// tokens up to `end`, of which the first `cached` are restored:
//   * `end`: the next turn goes on from it; or, if it is near, the last of the
//     `boundaries`: a chat's prompt ends in the header of the answer, which the
//     next turn may render otherwise (without <think>);
//   * `common`, where a known path left this one, so that a third one finds it;
//   * the sender's `boundaries` (ends of messages, ascending): the first, and
//     the last few;
//   * without boundaries, some way back from the end, for a prompt that shares
//     all but its last part with one that comes later.
std::vector<int64_t> SnapshotPoints(int64_t cached, int64_t common, int64_t end,
                                    absl::Span<const int64_t> boundaries);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_SNAPSHOT_POINTS_H_
