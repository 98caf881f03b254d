#include "router/routing/least_loaded.h"

#include <vector>

namespace switchyard::router {

size_t LeastLoaded::Choose(absl::Span<const RoutingCandidate> candidates,
                           uint64_t turn) const {
  std::vector<size_t> least;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!least.empty() && candidates[i].load > candidates[least[0]].load) {
      continue;
    }
    if (!least.empty() && candidates[i].load < candidates[least[0]].load) {
      least.clear();
    }
    least.push_back(i);
  }
  return least[turn % least.size()];
}

}  // namespace switchyard::router
