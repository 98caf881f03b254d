#include "router/membership/topology.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "base/json.h"
#include "fabric/membership/member.h"

namespace switchyard::router {
namespace {

using fabric::Member;

bool IsExpertWorker(const Member& member) {
  return member.role == fabric::MemberRole::kExpertWorker;
}

Json MemberJson(const Member& member) {
  Json json = {
      {"instance_id", member.instance_id},
      {"role", std::string(fabric::MemberRoleName(member.role))},
      {"address", member.address},
      {"state", std::string(fabric::MemberStateName(member.state))},
      {"host", member.host},
      {"zone", member.zone},
      {"version", member.version},
      {"started_unix_millis", member.started_unix_millis},
      {"model_fingerprint", member.model_fingerprint},
      {"weight_format", member.weight_format},
  };
  if (IsExpertWorker(member)) {
    json["held_experts"] = member.holdings.size();
    json["budget_experts"] = member.budget_experts;
    json["expert_bytes"] = member.expert_bytes;
    json["replicas"] = member.replicas;
  }
  return json;
}

// Members that hold experts of the model that most have; indices.
std::vector<size_t> HoldersOfOneModel(const std::vector<Member>& members) {
  std::map<std::tuple<std::string, int, int>, std::vector<size_t>> models;
  for (size_t i = 0; i < members.size(); ++i) {
    if (!IsExpertWorker(members[i])) continue;
    models[{members[i].model_fingerprint, members[i].holdings.num_layers(),
            members[i].holdings.num_experts()}]
        .push_back(i);
  }
  std::vector<size_t> most;
  for (auto& [model, holders] : models) {
    if (holders.size() > most.size()) most = std::move(holders);
  }
  return most;
}

}  // namespace

std::string TopologyJson(const MemberRegistry& registry) {
  const fabric::ViewUpdate view = registry.Since(0);
  const std::vector<uint32_t> heat = registry.heat();
  Json members = Json::array();
  for (const Member& member : view.members)
    members.push_back(MemberJson(member));

  const std::vector<size_t> workers = HoldersOfOneModel(view.members);
  const int num_layers =
      workers.empty() ? 0 : view.members[workers[0]].holdings.num_layers();
  const int num_experts =
      workers.empty() ? 0 : view.members[workers[0]].holdings.num_experts();
  int replicas = 1;
  int64_t placed = 0;
  for (const size_t i : workers) {
    if (view.members[i].budget_experts == 0) continue;
    replicas = std::max(replicas, view.members[i].replicas);
    ++placed;
  }
  const auto wanted = static_cast<size_t>(
      std::min<int64_t>(replicas, std::max<int64_t>(placed, 1)));
  // Layers that nobody holds anything of may be dense.
  int64_t under_replicated = 0;
  Json holders = Json::array();
  for (int layer = 0; layer < num_layers; ++layer) {
    Json of_layer = Json::array();
    bool any = false;
    int64_t lacking = 0;
    for (int expert = 0; expert < num_experts; ++expert) {
      Json of_expert = Json::array();
      for (const size_t i : workers) {
        if (view.members[i].state != fabric::MemberState::kDraining &&
            view.members[i].holdings.Contains(layer, expert)) {
          of_expert.push_back(i);
        }
      }
      any = any || !of_expert.empty();
      lacking += of_expert.size() < wanted ? 1 : 0;
      of_layer.push_back(std::move(of_expert));
    }
    if (any) under_replicated += lacking;
    holders.push_back(std::move(of_layer));
  }
  Json rows = Json::array();
  if (!heat.empty() &&
      heat.size() == static_cast<size_t>(num_layers) * num_experts) {
    for (int layer = 0; layer < num_layers; ++layer) {
      const auto begin = heat.begin() + int64_t{layer} * num_experts;
      rows.push_back(std::vector<uint32_t>(begin, begin + num_experts));
    }
  }
  return DumpJson({{"router_id", view.router_id},
                   {"version", view.version},
                   {"settled", view.settled},
                   {"members", std::move(members)},
                   {"num_layers", num_layers},
                   {"num_experts", num_experts},
                   {"under_replicated", under_replicated},
                   {"holders", std::move(holders)},
                   {"heat", std::move(rows)}});
}

}  // namespace switchyard::router
