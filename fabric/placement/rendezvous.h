// Weighted rendezvous hashing in integers, so that every machine gets the same
// order.
//
// Above: placement.cc.

#ifndef SWITCHYARD_FABRIC_PLACEMENT_RENDEZVOUS_H_
#define SWITCHYARD_FABRIC_PLACEMENT_RENDEZVOUS_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace switchyard::fabric {

// A member's place in the draws; of its id alone.
uint64_t MemberHash(absl::string_view instance_id);

// What it costs to give item `item` to the member: the members of least cost
// have it. Over all items a member has the least cost of all in proportion to
// its weight, and a member more or less changes nobody else's costs: what
// moves, moves to or from that one. `weight` is in [1, 2^30].
uint64_t RendezvousCost(uint64_t member_hash, uint64_t item, int64_t weight);

}  // namespace switchyard::fabric

#endif  // SWITCHYARD_FABRIC_PLACEMENT_RENDEZVOUS_H_
