// Which member should hold which experts: a pure function of who is there, so
// that every process computes it for itself and nobody has to be asked.
//
// It is advice. What a member holds is what it advertises
// (proto/expert.proto); rows go there and nowhere else.
//
// Above: expert_worker loads and drops by it, the router shows it. Below:
// rendezvous.h.

#ifndef SWITCHYARD_FABRIC_PLACEMENT_PLACEMENT_H_
#define SWITCHYARD_FABRIC_PLACEMENT_PLACEMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/expert_set.h"

namespace switchyard::fabric {

// Most members that are placed on; more are a mistake of the caller.
inline constexpr int kMaxPlacementMembers = 1024;

struct PlacementMember {
  std::string instance_id;
  // (layer, expert) pairs that fit into its memory; also its weight: a member
  // with more gets more. With one copy of everything twice the budget gets
  // twice as many; with several copies somewhat fewer, for no member can have
  // two copies of one expert. 0: nothing is placed there.
  int64_t budget = 0;
  // Labels of what fails together; empty: unknown, and then as if alone.
  std::string host;
  std::string zone;
};

struct PlacementRequest {
  std::vector<PlacementMember> members;  // any order; ids differ
  model::ExpertSet experts;              // all that the model has
  int replicas = 2;                      // >= 1

  // Rows that each expert had lately, [num_layers * num_experts]; empty: not
  // known, and no expert gets more than `replicas`.
  std::vector<uint32_t> heat;
  // How many hold each expert now, as `heat`; empty: not known. An expert that
  // has further copies keeps them longer than it took to get them.
  std::vector<uint16_t> holders_now;
  // An expert gets another copy when the rows for each of its copies are more
  // than this many percent of the mean for a copy in its layer, and keeps it
  // while they are more than the second number; and while it has had `min_heat`
  // rows at all.
  int hot_percent = 300;
  int keep_hot_percent = 200;
  uint32_t min_heat = 1000;
};

// An immutable value.
class Placement {
 public:
  Placement() = default;

  // Every expert on min(replicas, members) members, and on hosts and zones that
  // differ where that can be, unless the budgets do not suffice: then as many
  // experts as possible have one, then two, and so on. No budget is exceeded.
  // No member has more of a layer than its share by weight and 8% and one: a
  // step waits for whoever has most of its layer. What budgets leave
  // goes to hot experts. Equal requests, with members in whatever order, give
  // equal placements on every machine. 48 x 512 experts on 16 members take
  // about 30 ms.
  static Placement Compute(const PlacementRequest& request);

  int num_members() const { return static_cast<int>(ids_.size()); }
  // Ascending.
  const std::string& instance_id(int member) const { return ids_[member]; }
  // -1: no such member.
  int MemberIndex(absl::string_view instance_id) const;

  // Members that should hold the pair, first choice first.
  absl::Span<const uint16_t> HoldersOf(int layer, int expert) const;

  // What a member should hold, and of that the ones that it is the `replica`th
  // (from 0) choice for: a first choice is more urgent than a second. Empty
  // for an unknown id.
  model::ExpertSet ExpertsOf(absl::string_view instance_id) const;
  // -1: the member should not hold it.
  int ReplicaOf(int member, int layer, int expert) const;

  // Copies that `replicas` asks for and the budgets have no room for.
  int64_t missing_copies() const { return missing_copies_; }
  // Further copies of hot experts.
  int64_t extra_copies() const { return extra_copies_; }

  friend bool operator==(const Placement&, const Placement&) = default;

 private:
  friend class Placer;

  int num_layers_ = 0;
  int num_experts_ = 0;
  std::vector<std::string> ids_;
  std::vector<uint32_t> begin_;    // [pairs + 1], into holders_
  std::vector<uint16_t> holders_;  // pair after pair
  int64_t missing_copies_ = 0;
  int64_t extra_copies_ = 0;
};

}  // namespace switchyard::fabric

#endif  // SWITCHYARD_FABRIC_PLACEMENT_PLACEMENT_H_
