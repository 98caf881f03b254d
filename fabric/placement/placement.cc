#include "fabric/placement/placement.h"

#include <algorithm>
#include <deque>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "fabric/placement/rendezvous.h"

namespace switchyard::fabric {
namespace {

// A member's share of a layer may be exceeded by so much. Less spreads better
// and moves more when members come and go: at 4% up to 9% of what moves does so
// between old members, at 8% it is 4%. A layer of 512 experts on 16 members is
// spread to within 30% by chance alone.
constexpr int64_t kTolerancePercent = 8;
// Fractions of experts in shares.
constexpr int kShareBits = 16;
constexpr int64_t kMaxWeight = int64_t{1} << 30;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

// The steps of Compute. Experts that the model has are "items" here, numbered
// from 0 layer after layer.
class Placer {
 public:
  explicit Placer(const PlacementRequest& request) : request_(request) {
    SortMembers();
    ListItems();
    ComputeCosts();
  }

  Placement Run();

 private:
  struct Layer {
    int begin = 0;  // items
    int end = 0;
    int size() const { return end - begin; }
  };
  // In a layer, cheapest first.
  struct Offer {
    uint64_t cost;
    int item;
    friend bool operator<(const Offer& a, const Offer& b) {
      return std::pair(a.cost, a.item) < std::pair(b.cost, b.item);
    }
  };

  void SortMembers();
  void ListItems();
  void ComputeCosts();

  // Members' shares of a layer's items times `copies`, with kShareBits.
  std::vector<int64_t> Shares(const Layer& layer, int copies) const;
  // How much of the member's budget is for the layer.
  int64_t BudgetFor(int member, const Layer& layer) const;
  // Gives each of the layer's items its copy number `copy`, as far as shares
  // allow.
  void PlaceCopy(const Layer& layer, int copy, int copies);
  // Gives copies to items that have fewer than `copies`, wherever there is
  // room, moving others if need be.
  void Fill(int copies);
  bool MakeRoom(int item);
  void AddHotCopies();
  int WantedCopies(int item, uint64_t layer_heat, int layer_size) const;

  uint64_t Cost(int item, int member) const {
    return costs_[static_cast<size_t>(item) * num_members_ + member];
  }
  // Members by ascending cost.
  const uint16_t* Order(int item) const {
    return order_.data() + static_cast<size_t>(item) * num_members_;
  }
  bool Holds(int member, int item) const { return holds_[member][item]; }
  // 0: shares neither zone nor host with the item's holders; 2: a host.
  int Company(int item, int member) const;
  void Give(int item, int member) {
    holders_[item].push_back(static_cast<uint16_t>(member));
    holds_[member][item] = true;
    ++held_[member];
  }
  int Budget(int member) const { return budgets_[member]; }
  bool HasRoom(int member) const { return held_[member] < budgets_[member]; }

  const PlacementRequest& request_;
  int num_members_ = 0;
  std::vector<const PlacementMember*> members_;  // with a budget, by id
  std::vector<int> budgets_;                     // at most the items
  std::vector<int> host_, zone_;                 // numbers for labels
  std::vector<Layer> layers_;
  std::vector<int> pair_of_item_;
  std::vector<uint64_t> costs_;                 // [items, members]
  std::vector<uint16_t> order_;                 // [items, members]
  std::vector<std::vector<uint16_t>> holders_;  // [items]
  std::vector<std::vector<bool>> holds_;        // [members][items]
  std::vector<int> held_;                       // [members]
};

void Placer::SortMembers() {
  for (const PlacementMember& member : request_.members) {
    if (member.budget > 0) members_.push_back(&member);
  }
  std::sort(members_.begin(), members_.end(),
            [](const PlacementMember* a, const PlacementMember* b) {
              return a->instance_id < b->instance_id;
            });
  num_members_ = static_cast<int>(members_.size());
  SY_CHECK(num_members_ <= kMaxPlacementMembers);
  // The first member with a label gives it its number; one without has its own.
  const auto number = [&](std::string PlacementMember::*label) {
    std::vector<int> numbers(num_members_);
    for (int i = 0; i < num_members_; ++i) {
      numbers[i] = i;
      for (int j = 0; j < i && !(members_[i]->*label).empty(); ++j) {
        if (members_[j]->*label == members_[i]->*label) {
          numbers[i] = j;
          break;
        }
      }
    }
    return numbers;
  };
  host_ = number(&PlacementMember::host);
  zone_ = number(&PlacementMember::zone);
}

void Placer::ListItems() {
  const model::ExpertSet& experts = request_.experts;
  for (int l = 0; l < experts.num_layers(); ++l) {
    Layer layer{static_cast<int>(pair_of_item_.size()), 0};
    for (int e = 0; e < experts.num_experts(); ++e) {
      if (experts.Contains(l, e)) {
        pair_of_item_.push_back(l * experts.num_experts() + e);
      }
    }
    layer.end = static_cast<int>(pair_of_item_.size());
    if (layer.size() > 0) layers_.push_back(layer);
  }
  const size_t num_items = pair_of_item_.size();
  holders_.resize(num_items);
  holds_.assign(num_members_, std::vector<bool>(num_items));
  held_.assign(num_members_, 0);
  for (const PlacementMember* member : members_) {
    budgets_.push_back(static_cast<int>(
        std::min<int64_t>(member->budget, static_cast<int64_t>(num_items))));
  }
}

void Placer::ComputeCosts() {
  const size_t num_items = pair_of_item_.size();
  costs_.resize(num_items * num_members_);
  order_.resize(num_items * num_members_);
  std::vector<uint64_t> hashes;
  for (const PlacementMember* member : members_) {
    hashes.push_back(MemberHash(member->instance_id));
  }
  for (size_t item = 0; item < num_items; ++item) {
    uint64_t* const costs = costs_.data() + item * num_members_;
    uint16_t* const order = order_.data() + item * num_members_;
    for (int m = 0; m < num_members_; ++m) {
      costs[m] =
          RendezvousCost(hashes[m], static_cast<uint64_t>(pair_of_item_[item]),
                         std::min(members_[m]->budget, kMaxWeight));
      order[m] = static_cast<uint16_t>(m);
    }
    std::sort(order, order + num_members_, [costs](uint16_t a, uint16_t b) {
      return std::pair(costs[a], a) < std::pair(costs[b], b);
    });
  }
}

std::vector<int64_t> Placer::Shares(const Layer& layer, int copies) const {
  const int64_t most = int64_t{layer.size()} << kShareBits;
  std::vector<int64_t> shares(num_members_, 0);
  std::vector<bool> full(num_members_, false);
  // Nobody can have more than all: what is beyond goes to the others.
  while (true) {
    __int128 need = static_cast<__int128>(most) * copies;
    __int128 weights = 0;
    for (int m = 0; m < num_members_; ++m) {
      if (full[m]) {
        need -= most;
      } else {
        weights += members_[m]->budget;
      }
    }
    bool more_full = false;
    for (int m = 0; m < num_members_; ++m) {
      if (full[m]) continue;
      shares[m] = static_cast<int64_t>(std::min<__int128>(
          need <= 0 ? 0 : need * members_[m]->budget / weights, most));
      if (shares[m] == most) full[m] = more_full = true;
    }
    if (!more_full) return shares;
  }
}

int64_t Placer::BudgetFor(int member, const Layer& layer) const {
  const auto all = static_cast<int64_t>(pair_of_item_.size());
  const int64_t budget = budgets_[member];
  return budget * layer.end / all - budget * layer.begin / all;
}

int Placer::Company(int item, int member) const {
  int company = 0;
  for (const uint16_t holder : holders_[item]) {
    if (host_[holder] == host_[member]) return 2;
    if (zone_[holder] == zone_[member]) company = 1;
  }
  return company;
}

// Items propose to members in the order of their preference, and a member whose
// share is used up keeps the cheapest (deferred acceptance, Gale and Shapley):
// the outcome does not depend on the order of the proposals, and stays the same
// where a change of the members does not reach.
void Placer::PlaceCopy(const Layer& layer, int copy, int copies) {
  const std::vector<int64_t> shares = Shares(layer, copies);
  std::vector<int64_t> room(num_members_);
  for (int m = 0; m < num_members_; ++m) {
    int64_t held = 0;
    for (int item = layer.begin; item < layer.end; ++item) {
      held += Holds(m, item) ? 1 : 0;
    }
    const int64_t share =
        std::min(CeilDiv(shares[m] * (copy + 1) * (100 + kTolerancePercent),
                         (int64_t{copies} * 100) << kShareBits),
                 BudgetFor(m, layer));
    room[m] = std::max<int64_t>(0, share - held);
  }
  // Of each item: members that it has not proposed to, best last.
  std::vector<std::vector<uint16_t>> wishes(layer.size());
  std::vector<int> proposing;
  for (int item = layer.end - 1; item >= layer.begin; --item) {
    if (static_cast<int>(holders_[item].size()) != copy) continue;
    std::vector<uint16_t>& list = wishes[item - layer.begin];
    for (int company = 2; company >= 0; --company) {
      for (int i = num_members_ - 1; i >= 0; --i) {
        const uint16_t m = Order(item)[i];
        if (!Holds(m, item) && Company(item, m) == company) list.push_back(m);
      }
    }
    proposing.push_back(item);
  }
  std::vector<std::vector<Offer>> accepted(
      num_members_);  // heaps, dearest first
  while (!proposing.empty()) {
    const int item = proposing.back();
    proposing.pop_back();
    std::vector<uint16_t>& list = wishes[item - layer.begin];
    while (!list.empty()) {
      const uint16_t m = list.back();
      list.pop_back();
      std::vector<Offer>& heap = accepted[m];
      const Offer offer{Cost(item, m), item};
      const bool full = static_cast<int64_t>(heap.size()) >= room[m];
      if (full && (heap.empty() || !(offer < heap.front()))) continue;
      if (full) {
        std::pop_heap(heap.begin(), heap.end());
        proposing.push_back(heap.back().item);
        heap.pop_back();
      }
      heap.push_back(offer);
      std::push_heap(heap.begin(), heap.end());
      break;
    }
  }
  for (int m = 0; m < num_members_; ++m) {
    for (const Offer& offer : accepted[m]) Give(offer.item, m);
  }
}

// A member without room gives one of its items away to make room for `item`,
// perhaps along a chain: the shortest is found by breadth-first search.
bool Placer::MakeRoom(int item) {
  const int num_items = static_cast<int>(pair_of_item_.size());
  struct Step {
    int from = -1;  // the member that gives
    int gives = -1;
  };
  std::vector<Step> step(num_members_);
  std::vector<bool> seen(num_members_);
  std::deque<int> queue;
  for (int i = 0; i < num_members_; ++i) {
    const int m = Order(item)[i];
    if (Holds(m, item)) continue;
    seen[m] = true;
    queue.push_back(m);
  }
  int end = -1;
  while (!queue.empty() && end < 0) {
    const int giver = queue.front();
    queue.pop_front();
    if (HasRoom(giver)) {
      end = giver;
      break;
    }
    for (int m = 0; m < num_members_; ++m) {
      if (seen[m]) continue;
      for (int other = 0; other < num_items; ++other) {
        if (!Holds(giver, other) || Holds(m, other)) continue;
        seen[m] = true;
        step[m] = {giver, other};
        queue.push_back(m);
        break;
      }
    }
  }
  if (end < 0) return false;
  while (step[end].from >= 0) {
    const auto [giver, given] = step[end];
    // In its place, so that it stays the choice that it was.
    std::replace(holders_[given].begin(), holders_[given].end(),
                 static_cast<uint16_t>(giver), static_cast<uint16_t>(end));
    holds_[giver][given] = false;
    holds_[end][given] = true;
    --held_[giver];
    ++held_[end];
    end = giver;
  }
  Give(item, end);
  return true;
}

void Placer::Fill(int copies) {
  for (int item = 0; item < static_cast<int>(pair_of_item_.size()); ++item) {
    while (static_cast<int>(holders_[item].size()) < copies) {
      int best = -1;
      int best_company = 3;
      for (int i = 0; i < num_members_; ++i) {
        const int m = Order(item)[i];
        if (Holds(m, item) || !HasRoom(m)) continue;
        const int company = Company(item, m);
        if (company < best_company) {
          best = m;
          best_company = company;
        }
      }
      if (best >= 0) {
        Give(item, best);
      } else {
        // Room that is left is at members that have this item already. Without
        // any there is nothing to search for.
        bool any_room = false;
        for (int m = 0; m < num_members_; ++m) any_room |= HasRoom(m);
        if (!any_room) return;
        if (!MakeRoom(item)) break;
      }
    }
  }
}

int Placer::WantedCopies(int item, uint64_t layer_heat, int layer_size) const {
  const int base = static_cast<int>(holders_[item].size());
  const int pair = pair_of_item_[item];
  const uint64_t heat = request_.heat[pair];
  if (heat < request_.min_heat || layer_heat == 0) return base;
  // Copies so that heat / copies <= percent / 100 * mean / replicas.
  const auto copies_at = [&](int percent) {
    const auto wanted = static_cast<uint64_t>(
        static_cast<__int128>(heat) * 100 * request_.replicas * layer_size /
        (static_cast<__int128>(layer_heat) * percent));
    return static_cast<int>(std::min<uint64_t>(wanted, num_members_));
  };
  const int grow = std::max(base, copies_at(request_.hot_percent));
  const int keep = std::max(grow, copies_at(request_.keep_hot_percent));
  const int now =
      request_.holders_now.empty() ? base : request_.holders_now[pair];
  return std::clamp(now, grow, keep);
}

void Placer::AddHotCopies() {
  if (request_.heat.empty()) return;
  struct Extra {
    uint64_t heat;  // of each copy there is before this one
    int item;
    int copy;
  };
  std::vector<Extra> extras;
  for (const Layer& layer : layers_) {
    uint64_t layer_heat = 0;
    for (int item = layer.begin; item < layer.end; ++item) {
      layer_heat += request_.heat[pair_of_item_[item]];
    }
    for (int item = layer.begin; item < layer.end; ++item) {
      const int wanted = WantedCopies(item, layer_heat, layer.size());
      for (int copy = static_cast<int>(holders_[item].size()); copy < wanted;
           ++copy) {
        extras.push_back({(uint64_t{request_.heat[pair_of_item_[item]]} << 16) /
                              std::max(copy, 1),
                          item, copy});
      }
    }
  }
  std::sort(extras.begin(), extras.end(), [](const Extra& a, const Extra& b) {
    return std::tuple(b.heat, a.item, a.copy) <
           std::tuple(a.heat, b.item, b.copy);
  });
  for (const Extra& extra : extras) {
    for (int i = 0; i < num_members_; ++i) {
      const int m = Order(extra.item)[i];
      if (Holds(m, extra.item) || !HasRoom(m)) continue;
      Give(extra.item, m);
      break;
    }
  }
}

Placement Placer::Run() {
  const int copies = std::min(request_.replicas, num_members_);
  for (int copy = 0; copy < copies; ++copy) {
    for (const Layer& layer : layers_) PlaceCopy(layer, copy, copies);
    Fill(copy + 1);
  }
  Placement result;
  result.num_layers_ = request_.experts.num_layers();
  result.num_experts_ = request_.experts.num_experts();
  for (const PlacementMember* member : members_) {
    result.ids_.push_back(member->instance_id);
  }
  for (const auto& holders : holders_) {
    result.missing_copies_ +=
        request_.replicas - static_cast<int64_t>(holders.size());
  }
  AddHotCopies();
  for (const auto& holders : holders_) {
    result.extra_copies_ += std::max<int64_t>(
        0, static_cast<int64_t>(holders.size()) - request_.replicas);
  }
  const int num_pairs = result.num_layers_ * result.num_experts_;
  size_t item = 0;
  for (int pair = 0; pair < num_pairs; ++pair) {
    result.begin_.push_back(static_cast<uint32_t>(result.holders_.size()));
    if (item == pair_of_item_.size() || pair_of_item_[item] != pair) continue;
    const std::vector<uint16_t>& holders = holders_[item++];
    result.holders_.insert(result.holders_.end(), holders.begin(),
                           holders.end());
  }
  result.begin_.push_back(static_cast<uint32_t>(result.holders_.size()));
  return result;
}

Placement Placement::Compute(const PlacementRequest& request) {
  const int64_t pairs =
      int64_t{request.experts.num_layers()} * request.experts.num_experts();
  SY_CHECK(request.replicas >= 1);
  SY_CHECK(request.heat.empty() ||
           static_cast<int64_t>(request.heat.size()) == pairs);
  SY_CHECK(request.holders_now.empty() ||
           static_cast<int64_t>(request.holders_now.size()) == pairs);
  return Placer(request).Run();
}

int Placement::MemberIndex(absl::string_view instance_id) const {
  const auto found =
      std::lower_bound(ids_.begin(), ids_.end(), instance_id,
                       [](const std::string& a, absl::string_view b) {
                         return absl::string_view(a) < b;
                       });
  return found == ids_.end() || absl::string_view(*found) != instance_id
             ? -1
             : static_cast<int>(found - ids_.begin());
}

absl::Span<const uint16_t> Placement::HoldersOf(int layer, int expert) const {
  if (layer < 0 || layer >= num_layers_ || expert < 0 ||
      expert >= num_experts_) {
    return {};
  }
  const size_t pair = static_cast<size_t>(layer) * num_experts_ + expert;
  return absl::MakeConstSpan(holders_).subspan(begin_[pair],
                                               begin_[pair + 1] - begin_[pair]);
}

int Placement::ReplicaOf(int member, int layer, int expert) const {
  const absl::Span<const uint16_t> holders = HoldersOf(layer, expert);
  const auto found = std::find(holders.begin(), holders.end(), member);
  return found == holders.end() ? -1
                                : static_cast<int>(found - holders.begin());
}

model::ExpertSet Placement::ExpertsOf(absl::string_view instance_id) const {
  model::ExpertSet experts(num_layers_, num_experts_);
  const int member = MemberIndex(instance_id);
  if (member < 0) return experts;
  for (int layer = 0; layer < num_layers_; ++layer) {
    for (int expert = 0; expert < num_experts_; ++expert) {
      if (ReplicaOf(member, layer, expert) >= 0) experts.Insert(layer, expert);
    }
  }
  return experts;
}

}  // namespace switchyard::fabric
