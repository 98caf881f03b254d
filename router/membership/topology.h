// The cluster as operators see it: GET /topology.

#ifndef SWITCHYARD_ROUTER_MEMBERSHIP_TOPOLOGY_H_
#define SWITCHYARD_ROUTER_MEMBERSHIP_TOPOLOGY_H_

#include <string>

#include "router/membership/registry.h"

namespace switchyard::router {

// A JSON object:
//   router_id, version, settled   of the view, as in proto/membership.proto
//   members      [{instance_id, role, address, state, host, zone, version,
//                started_unix_millis, model_fingerprint, weight_format, and of
//                expert workers: held_experts, budget_experts (0: its holdings
//                are fixed), expert_bytes, replicas}]
//   num_layers, num_experts       of the model that most expert workers hold
//   under_replicated              pairs that fewer live members hold than their
//                                 `replicas` say (or one, if those are fixed)
//   holders      [layer][expert] -> [index into members, ...]; without those
//                that drain
//   heat         [layer][expert] -> rows lately; empty if none is known
std::string TopologyJson(const MemberRegistry& registry);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_MEMBERSHIP_TOPOLOGY_H_
