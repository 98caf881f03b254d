// What this worker should load and let go of, as things stand: decisions only.
//
// Above: holdings_keeper.h does what is planned. Below:
// fabric/placement/placement.h says who should hold what.

#ifndef SWITCHYARD_EXPERT_WORKER_PLACEMENT_HOLDINGS_PLAN_H_
#define SWITCHYARD_EXPERT_WORKER_PLACEMENT_HOLDINGS_PLAN_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "experts/expert_engine.h"
#include "fabric/membership/member.h"
#include "fabric/placement/placement.h"
#include "model/expert_set.h"

namespace switchyard::expert_worker {

struct HoldingsPlan {
  // False: too little is known (no router has spoken, or this worker has just
  // joined), and there is nothing to do.
  bool ready = false;
  // Pairs to load, most urgent first: those with the fewest live holders, first
  // choices before second ones, hot ones before cold ones.
  std::vector<experts::ExpertEngine::Pair> load;
  // From here on `load` has further copies of hot experts.
  size_t first_extra = 0;
  // Advertised pairs that nobody needs here: as many others as there should be
  // hold them. Of a draining worker: those that one other holds, or all if it
  // is the last one.
  std::vector<experts::ExpertEngine::Pair> withdraw;
  // Pairs that fewer live workers hold than should, of the whole model.
  int64_t under_replicated = 0;
  // Pairs that this worker should hold.
  int64_t wanted = 0;
  // Counts the placements that this worker has seen.
  int64_t epoch = 0;
  // With the same view the plan may be another one later: somebody is waited
  // for.
  bool waits = true;
};

// One thread.
class HoldingsPlanner {
 public:
  struct Options {
    std::string instance_id;   // of this worker
    model::ExpertSet experts;  // all that the model has
    int replicas = 2;
    // A worker that vanished without a word keeps its place for so long: it may
    // be slow, or come back at its address. Its experts have other holders
    // meanwhile, or it is not waited for.
    absl::Duration rebalance_delay = absl::Seconds(1);
    // Workers that come together get their shares together: a newcomer waits
    // until no other has come for so long, or for four times as long.
    absl::Duration join_delay = absl::Milliseconds(300);
  };

  explicit HoldingsPlanner(Options options);

  // `advertised`: what this worker says that it holds.
  HoldingsPlan Plan(const fabric::View& view,
                    const model::ExpertSet& advertised, bool draining,
                    absl::Time now);

 private:
  struct Lost {
    fabric::Member member;
    absl::Time since;
  };

  // Members that belong to this worker's model, by address.
  std::map<std::string, const fabric::Member*> Peers(
      const fabric::View& view, const fabric::Member& self) const;
  void RememberLost(const std::map<std::string, const fabric::Member*>& peers,
                    absl::Time now);
  // Lets newcomers in, unless more may come.
  void Admit(const std::map<std::string, const fabric::Member*>& peers,
             absl::Time now);
  void UpdatePlacement(
      const std::map<std::string, const fabric::Member*>& peers,
      const fabric::View& view, const std::vector<uint16_t>& holders);

  const Options options_;
  std::map<std::string, fabric::Member> last_;  // by address
  std::map<std::string, Lost> lost_;            // by address
  std::set<std::string> admitted_;              // addresses
  std::set<std::string> newcomers_;             // addresses
  absl::Time first_newcomer_;
  absl::Time last_newcomer_;
  fabric::PlacementRequest request_;  // of placement_
  fabric::Placement placement_;
  int64_t epoch_ = 0;
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_PLACEMENT_HOLDINGS_PLAN_H_
