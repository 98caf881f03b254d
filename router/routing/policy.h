// Which of several attention workers gets a request. One file per policy in
// this folder; what may be chosen at all is worker_pool.h's business.

#ifndef SWITCHYARD_ROUTER_ROUTING_POLICY_H_
#define SWITCHYARD_ROUTER_ROUTING_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/types/span.h"

namespace switchyard::router {

// A worker that is ready.
struct RoutingCandidate {
  std::string name;
  // Requests at the worker, running and waiting: what it said last, or what
  // this router has sent and not seen the end of, whichever is more.
  int64_t load = 0;
};

// A pure decision. Thread-safe.
class RoutingPolicy {
 public:
  virtual ~RoutingPolicy() = default;

  // An index into `candidates`, which is not empty and in the order in which
  // the workers were configured. `turn` is another number for every request.
  virtual size_t Choose(absl::Span<const RoutingCandidate> candidates,
                        uint64_t turn) const = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ROUTING_POLICY_H_
