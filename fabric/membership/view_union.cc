#include "fabric/membership/view_union.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace switchyard::fabric {

void ViewUnion::Connected(const std::string& router) {
  routers_[router].connected = true;
}

void ViewUnion::Apply(const std::string& router, ViewUpdate update) {
  Router& known = routers_[router];
  if (update.complete) {
    known.before.merge(known.members);
    known.members.clear();
  }
  for (Member& member : update.members) {
    std::string id = member.instance_id;
    known.members.insert_or_assign(std::move(id), std::move(member));
  }
  for (const std::string& id : update.removed) {
    known.members.erase(id);
    known.before.erase(id);
  }
  known.settled = update.settled;
  if (known.settled) known.before.clear();
  if (!update.heat.empty()) known.heat = std::move(update.heat);
}

void ViewUnion::Disconnected(const std::string& router) {
  routers_[router].connected = false;
}

void ViewUnion::Forget(const std::string& router) { routers_.erase(router); }

View ViewUnion::Merge() const {
  View view;
  view.settled =
      std::any_of(routers_.begin(), routers_.end(),
                  [](const auto& entry) { return entry.second.settled; });
  const bool any_sure =
      std::any_of(routers_.begin(), routers_.end(), [](const auto& entry) {
        return entry.second.connected && entry.second.settled;
      });
  std::map<std::string, const Member*> by_id;
  const auto add = [&by_id](const std::map<std::string, Member>& members) {
    for (const auto& [id, member] : members) {
      const Member*& known = by_id[id];
      if (known == nullptr || known->revision < member.revision) {
        known = &member;
      }
    }
  };
  for (const auto& [name, router] : routers_) {
    if (router.connected || !any_sure) add(router.members);
    if (!any_sure) add(router.before);
    // Each router hears of every row: the fullest count is the best one.
    if (view.heat.size() < router.heat.size()) {
      view.heat.resize(router.heat.size());
    }
    for (size_t i = 0; i < router.heat.size(); ++i) {
      view.heat[i] = std::max(view.heat[i], router.heat[i]);
    }
  }
  // No ghosts: the instance that came last to an address has it.
  std::map<std::pair<MemberRole, std::string>, const Member*> by_address;
  for (const auto& [id, member] : by_id) {
    const Member*& holder = by_address[{member->role, member->address}];
    if (holder == nullptr ||
        std::tuple(holder->started_unix_millis, holder->instance_id) <
            std::tuple(member->started_unix_millis, member->instance_id)) {
      holder = member;
    }
  }
  for (const auto& [id, member] : by_id) {
    if (by_address[{member->role, member->address}] == member) {
      view.members.push_back(*member);
    }
  }
  return view;
}

}  // namespace switchyard::fabric
