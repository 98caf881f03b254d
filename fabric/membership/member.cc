#include "fabric/membership/member.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::fabric {

absl::string_view MemberRoleName(MemberRole role) {
  return role == MemberRole::kExpertWorker ? "expert_worker"
                                           : "attention_worker";
}

absl::string_view MemberStateName(MemberState state) {
  switch (state) {
    case MemberState::kLoading:
      return "loading";
    case MemberState::kServing:
      return "serving";
    case MemberState::kDraining:
      return "draining";
  }
  return "unknown";
}

absl::Status CheckMember(const Member& member) {
  if (member.instance_id.empty() ||
      member.instance_id.size() > kMaxInstanceIdBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a member's instance_id has ", member.instance_id.size(),
                     " bytes; it must have 1 to ", kMaxInstanceIdBytes));
  }
  const auto with_id = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("member ", member.instance_id, ": ", what));
  };
  for (const auto& [name, text] :
       {std::pair<absl::string_view, const std::string&>("address",
                                                         member.address),
        {"model_fingerprint", member.model_fingerprint},
        {"weight_format", member.weight_format},
        {"version", member.version},
        {"host", member.host},
        {"zone", member.zone}}) {
    if (text.size() > kMaxMemberTextBytes) {
      return with_id(absl::StrCat(name, " has ", text.size(),
                                  " bytes; at most ", kMaxMemberTextBytes));
    }
  }
  if (member.address.empty()) return with_id("no address");
  if (member.model_fingerprint.empty()) return with_id("no model_fingerprint");
  if (member.role == MemberRole::kExpertWorker) {
    if (member.holdings.num_layers() < 1 || member.holdings.num_experts() < 1) {
      return with_id("an expert worker without num_layers and num_experts");
    }
    if (member.expert_bytes < 1 || member.budget_experts < 0) {
      return with_id(absl::StrCat("expert_bytes is ", member.expert_bytes,
                                  " and budget_experts ", member.budget_experts,
                                  "; they must be at least 1 and 0"));
    }
    if (member.budget_experts > 0 && member.replicas < 1) {
      return with_id("it is placed, but says no number of replicas");
    }
  }
  return absl::OkStatus();
}

const Member* View::Find(absl::string_view instance_id) const {
  const auto found =
      std::lower_bound(members.begin(), members.end(), instance_id,
                       [](const Member& member, absl::string_view id) {
                         return absl::string_view(member.instance_id) < id;
                       });
  return found == members.end() ||
                 absl::string_view(found->instance_id) != instance_id
             ? nullptr
             : &*found;
}

}  // namespace switchyard::fabric
