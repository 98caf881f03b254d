#include "expert_worker/placement/holdings_plan.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace switchyard::expert_worker {

using fabric::Member;
using fabric::MemberState;

HoldingsPlanner::HoldingsPlanner(Options options)
    : options_(std::move(options)) {}

std::map<std::string, const Member*> HoldingsPlanner::Peers(
    const fabric::View& view, const Member& self) const {
  std::map<std::string, const Member*> peers;
  for (const Member& member : view.members) {
    if (member.role == fabric::MemberRole::kExpertWorker &&
        member.model_fingerprint == self.model_fingerprint &&
        member.weight_format == self.weight_format &&
        member.holdings.num_layers() == self.holdings.num_layers() &&
        member.holdings.num_experts() == self.holdings.num_experts()) {
      peers.emplace(member.address, &member);
    }
  }
  return peers;
}

void HoldingsPlanner::RememberLost(
    const std::map<std::string, const Member*>& peers, absl::Time now) {
  for (const auto& [address, member] : last_) {
    // Who said that it goes is not waited for.
    if (!peers.contains(address) && member.state != MemberState::kDraining) {
      lost_.try_emplace(address, Lost{member, now});
    }
  }
  for (auto it = lost_.begin(); it != lost_.end();) {
    it = peers.contains(it->first) ||
                 now - it->second.since >= options_.rebalance_delay
             ? lost_.erase(it)
             : std::next(it);
  }
  last_.clear();
  for (const auto& [address, member] : peers) last_.emplace(address, *member);
}

void HoldingsPlanner::Admit(const std::map<std::string, const Member*>& peers,
                            absl::Time now) {
  // Who is gone comes back as a newcomer.
  std::erase_if(admitted_, [&](const std::string& address) {
    return !peers.contains(address) && !lost_.contains(address);
  });
  std::erase_if(newcomers_, [&](const std::string& address) {
    return !peers.contains(address);
  });
  for (const auto& [address, member] : peers) {
    if (admitted_.contains(address)) continue;
    if (newcomers_.empty()) first_newcomer_ = now;
    if (newcomers_.insert(address).second) last_newcomer_ = now;
  }
  if (now - last_newcomer_ < options_.join_delay &&
      now - first_newcomer_ < 4 * options_.join_delay) {
    return;
  }
  admitted_.merge(newcomers_);
  newcomers_.clear();
}

void HoldingsPlanner::UpdatePlacement(
    const std::map<std::string, const Member*>& peers, const fabric::View& view,
    const std::vector<uint16_t>& holders) {
  fabric::PlacementRequest request;
  request.experts = options_.experts;
  request.replicas = options_.replicas;
  // By address: whoever comes back to one gets what was there.
  const auto add = [&](const Member& member) {
    if (member.budget_experts == 0 || member.state == MemberState::kDraining ||
        !admitted_.contains(member.address)) {
      return;
    }
    request.members.push_back({.instance_id = member.address,
                               .budget = member.budget_experts,
                               .host = member.host,
                               .zone = member.zone});
  };
  for (const auto& [address, member] : peers) add(*member);
  for (const auto& [address, lost] : lost_) add(lost.member);
  if (view.heat.size() == holders.size()) request.heat = view.heat;

  const auto same = [](const fabric::PlacementMember& a,
                       const fabric::PlacementMember& b) {
    return std::tie(a.instance_id, a.budget, a.host, a.zone) ==
           std::tie(b.instance_id, b.budget, b.host, b.zone);
  };
  if (epoch_ > 0 && request.heat == request_.heat &&
      std::equal(request.members.begin(), request.members.end(),
                 request_.members.begin(), request_.members.end(), same)) {
    return;
  }
  request.holders_now = holders;
  fabric::Placement placement = fabric::Placement::Compute(request);
  if (epoch_ == 0 || !(placement == placement_)) ++epoch_;
  placement_ = std::move(placement);
  request_ = std::move(request);
}

HoldingsPlan HoldingsPlanner::Plan(const fabric::View& view,
                                   const model::ExpertSet& advertised,
                                   bool draining, absl::Time now) {
  HoldingsPlan plan;
  const Member* const self = view.Find(options_.instance_id);
  if (!view.settled || self == nullptr) return plan;
  const std::map<std::string, const Member*> peers = Peers(view, *self);
  RememberLost(peers, now);
  Admit(peers, now);
  if (!admitted_.contains(self->address)) return plan;
  plan.ready = true;

  const int num_layers = options_.experts.num_layers();
  const int num_experts = options_.experts.num_experts();
  const auto index = [&](int layer, int expert) {
    return static_cast<size_t>(layer) * num_experts + expert;
  };
  // Live holders of each pair that will stay, this worker among them.
  std::vector<uint16_t> holders(static_cast<size_t>(num_layers) * num_experts);
  std::vector<const Member*> live;
  for (const auto& [address, member] : peers) {
    if (member != self && member->state != MemberState::kDraining) {
      live.push_back(member);
    }
  }
  for (int layer = 0; layer < num_layers; ++layer) {
    for (int expert = 0; expert < num_experts; ++expert) {
      uint16_t& count = holders[index(layer, expert)];
      count = !draining && advertised.Contains(layer, expert) ? 1 : 0;
      for (const Member* member : live) {
        count += member->holdings.Contains(layer, expert) ? 1 : 0;
      }
    }
  }
  UpdatePlacement(peers, view, holders);
  plan.epoch = epoch_;
  plan.waits = !lost_.empty() || !newcomers_.empty();

  const int me = placement_.MemberIndex(self->address);
  // Of the placement's members, by its numbers; null: lost for now.
  std::vector<const Member*> placed(placement_.num_members());
  for (int m = 0; m < placement_.num_members(); ++m) {
    const auto found = peers.find(placement_.instance_id(m));
    if (found != peers.end()) placed[m] = found->second;
  }
  const int replicas = std::min(
      options_.replicas,
      std::max<int>(1, static_cast<int>(std::count_if(
                           placed.begin(), placed.end(),
                           [](const Member* m) { return m != nullptr; }))));

  struct Wish {
    uint16_t holders;
    int rank;
    uint32_t cold;  // the less, the hotter
    experts::ExpertEngine::Pair pair;
    bool operator<(const Wish& other) const {
      return std::tie(holders, rank, cold, pair.layer, pair.expert) <
             std::tie(other.holders, other.rank, other.cold, other.pair.layer,
                      other.pair.expert);
    }
  };
  std::vector<Wish> wishes;
  std::vector<Wish> extras;
  for (int layer = 0; layer < num_layers; ++layer) {
    for (int expert = 0; expert < num_experts; ++expert) {
      if (!options_.experts.Contains(layer, expert)) continue;
      const size_t i = index(layer, expert);
      const bool have = advertised.Contains(layer, expert);
      if (holders[i] < replicas) ++plan.under_replicated;
      const int rank =
          draining || me < 0 ? -1 : placement_.ReplicaOf(me, layer, expert);
      if (rank >= 0) ++plan.wanted;
      if (rank >= 0 && !have) {
        const uint32_t heat = i < view.heat.size() ? view.heat[i] : 0;
        (rank < options_.replicas ? wishes : extras)
            .push_back({holders[i], rank, ~heat, {layer, expert}});
      }
      if (rank >= 0 || !have) continue;
      // Counted are those who should hold it, and so will not let it go, too.
      int others = 0;
      for (const uint16_t m : placement_.HoldersOf(layer, expert)) {
        const Member* const holder = placed[m];
        others += holder != nullptr && holder != self &&
                          holder->holdings.Contains(layer, expert)
                      ? 1
                      : 0;
      }
      // Fixed holdings stay, too.
      for (const Member* member : live) {
        others += member->budget_experts == 0 &&
                          member->holdings.Contains(layer, expert)
                      ? 1
                      : 0;
      }
      // A draining worker waits for one holder, unless there is nobody who
      // could become one.
      const int enough = !draining ? replicas : live.empty() ? 0 : 1;
      if (others >= enough) {
        plan.withdraw.push_back({layer, expert});
      }
    }
  }
  std::sort(wishes.begin(), wishes.end());
  std::sort(extras.begin(), extras.end());
  for (const Wish& wish : wishes) plan.load.push_back(wish.pair);
  plan.first_extra = plan.load.size();
  for (const Wish& wish : extras) plan.load.push_back(wish.pair);
  return plan;
}

}  // namespace switchyard::expert_worker
