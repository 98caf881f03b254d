// Philox4x32-10: a counter-based generator (Salmon, Moraes, Dror, Shaw,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// A pure function of (key, counter), so a draw needs no state and can be
// repeated: a replayed request draws the same numbers at the same positions.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_PHILOX_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_PHILOX_H_

#include <array>
#include <cstdint>

namespace switchyard::attention_worker {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

// Ten rounds. Equal to Random123's philox4x32 with 10 rounds.
PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_PHILOX_H_
