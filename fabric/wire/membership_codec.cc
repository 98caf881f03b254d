#include "fabric/wire/membership_codec.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace switchyard::fabric {
namespace {

constexpr uint64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

absl::Status Wrong(const v1::Member& member, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(
      "member \"", member.instance_id().substr(0, kMaxInstanceIdBytes),
      "\": ", what));
}

absl::StatusOr<MemberRole> RoleFromProto(const v1::Member& member) {
  switch (member.role()) {
    case v1::MEMBER_ROLE_ATTENTION_WORKER:
      return MemberRole::kAttentionWorker;
    case v1::MEMBER_ROLE_EXPERT_WORKER:
      return MemberRole::kExpertWorker;
    default:
      return Wrong(member,
                   absl::StrCat("its role is ", static_cast<int>(member.role()),
                                ", which this process does not know"));
  }
}

absl::StatusOr<MemberState> StateFromProto(const v1::Member& member) {
  switch (member.state()) {
    case v1::MEMBER_STATE_LOADING:
      return MemberState::kLoading;
    case v1::MEMBER_STATE_SERVING:
      return MemberState::kServing;
    case v1::MEMBER_STATE_DRAINING:
      return MemberState::kDraining;
    default:
      return Wrong(member, absl::StrCat("its state is ",
                                        static_cast<int>(member.state()),
                                        ", which this process does not know"));
  }
}

absl::Status ReadExperts(const v1::Member& from, Member* to) {
  const uint64_t pairs = uint64_t{from.num_layers()} * from.num_experts();
  if (pairs > static_cast<uint64_t>(kMaxMemberPairs) ||
      from.num_layers() > kMaxMemberPairs ||
      from.num_experts() > kMaxMemberPairs) {
    return Wrong(
        from, absl::StrCat(from.num_layers(), " layers of ", from.num_experts(),
                           " experts are more than this program can"));
  }
  absl::StatusOr<model::ExpertSet> holdings = model::ExpertSet::FromBitmap(
      static_cast<int>(from.num_layers()), static_cast<int>(from.num_experts()),
      from.holdings());
  if (!holdings.ok()) return Wrong(from, holdings.status().message());
  to->holdings = *std::move(holdings);
  if (from.expert_bytes() > kMaxInt64 || from.budget_experts() > kMaxInt64 ||
      from.replicas() > 1000) {
    return Wrong(from,
                 "expert_bytes, budget_experts or replicas are too large");
  }
  to->expert_bytes = static_cast<int64_t>(from.expert_bytes());
  to->budget_experts = static_cast<int64_t>(from.budget_experts());
  to->replicas = static_cast<int>(from.replicas());
  return absl::OkStatus();
}

}  // namespace

v1::Member MemberToProto(const Member& member) {
  v1::Member to;
  to.set_instance_id(member.instance_id);
  to.set_role(member.role == MemberRole::kExpertWorker
                  ? v1::MEMBER_ROLE_EXPERT_WORKER
                  : v1::MEMBER_ROLE_ATTENTION_WORKER);
  to.set_address(member.address);
  to.set_model_fingerprint(member.model_fingerprint);
  to.set_weight_format(member.weight_format);
  to.set_protocol_version(member.protocol_version);
  to.set_version(member.version);
  to.set_host(member.host);
  to.set_zone(member.zone);
  switch (member.state) {
    case MemberState::kLoading:
      to.set_state(v1::MEMBER_STATE_LOADING);
      break;
    case MemberState::kServing:
      to.set_state(v1::MEMBER_STATE_SERVING);
      break;
    case MemberState::kDraining:
      to.set_state(v1::MEMBER_STATE_DRAINING);
      break;
  }
  to.set_started_unix_millis(static_cast<uint64_t>(member.started_unix_millis));
  to.set_revision(member.revision);
  if (member.role == MemberRole::kExpertWorker) {
    to.set_num_layers(static_cast<uint32_t>(member.holdings.num_layers()));
    to.set_num_experts(static_cast<uint32_t>(member.holdings.num_experts()));
    to.set_expert_bytes(static_cast<uint64_t>(member.expert_bytes));
    to.set_budget_experts(static_cast<uint64_t>(member.budget_experts));
    to.set_replicas(static_cast<uint32_t>(member.replicas));
    to.set_holdings(member.holdings.ToBitmap());
  }
  return to;
}

absl::StatusOr<Member> MemberFromProto(const v1::Member& from) {
  Member member;
  member.instance_id = from.instance_id();
  SY_ASSIGN_OR_RETURN(member.role, RoleFromProto(from));
  SY_ASSIGN_OR_RETURN(member.state, StateFromProto(from));
  member.address = from.address();
  member.model_fingerprint = from.model_fingerprint();
  member.weight_format = from.weight_format();
  member.protocol_version = from.protocol_version();
  member.version = from.version();
  member.host = from.host();
  member.zone = from.zone();
  if (from.started_unix_millis() > kMaxInt64) {
    return Wrong(from, "started_unix_millis is too large");
  }
  member.started_unix_millis = static_cast<int64_t>(from.started_unix_millis());
  member.revision = from.revision();
  if (member.role == MemberRole::kExpertWorker) {
    SY_RETURN_IF_ERROR(ReadExperts(from, &member));
  }
  SY_RETURN_IF_ERROR(CheckMember(member));
  return member;
}

v1::ViewUpdate ViewUpdateToProto(const ViewUpdate& update) {
  v1::ViewUpdate to;
  to.set_version(update.version);
  to.set_router_id(update.router_id);
  to.set_complete(update.complete);
  to.set_settled(update.settled);
  for (const Member& member : update.members) {
    *to.add_members() = MemberToProto(member);
  }
  for (const std::string& id : update.removed) to.add_removed(id);
  to.mutable_heat()->Add(update.heat.begin(), update.heat.end());
  to.set_heartbeat_millis(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(update.heartbeat)));
  to.set_lease_millis(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(update.lease)));
  return to;
}

absl::StatusOr<ViewUpdate> ViewUpdateFromProto(const v1::ViewUpdate& from) {
  ViewUpdate update;
  update.version = from.version();
  update.router_id = from.router_id();
  update.complete = from.complete();
  update.settled = from.settled();
  for (const v1::Member& member : from.members()) {
    SY_ASSIGN_OR_RETURN(Member decoded, MemberFromProto(member));
    update.members.push_back(std::move(decoded));
  }
  update.removed.assign(from.removed().begin(), from.removed().end());
  if (from.heat_size() > kMaxMemberPairs) {
    return absl::InvalidArgumentError(
        absl::StrCat("a view's heat has ", from.heat_size(), " numbers"));
  }
  update.heat.assign(from.heat().begin(), from.heat().end());
  if (from.heartbeat_millis() == 0 ||
      from.lease_millis() <= from.heartbeat_millis()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a router wants heartbeats every ", from.heartbeat_millis(),
        " ms for a lease of ", from.lease_millis(),
        " ms; the lease must be the longer one, and neither 0"));
  }
  update.heartbeat = absl::Milliseconds(from.heartbeat_millis());
  update.lease = absl::Milliseconds(from.lease_millis());
  return update;
}

}  // namespace switchyard::fabric
