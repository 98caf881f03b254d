// The worker with the fewest requests; in turn among equals.

#ifndef SWITCHYARD_ROUTER_ROUTING_LEAST_LOADED_H_
#define SWITCHYARD_ROUTER_ROUTING_LEAST_LOADED_H_

#include "router/routing/policy.h"

namespace switchyard::router {

class LeastLoaded final : public RoutingPolicy {
 public:
  size_t Choose(absl::Span<const RoutingCandidate> candidates,
                uint64_t turn) const override;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ROUTING_LEAST_LOADED_H_
