// Members as tests want them.

#ifndef SWITCHYARD_TESTS_FABRIC_FABRIC_MEMBERS_H_
#define SWITCHYARD_TESTS_FABRIC_FABRIC_MEMBERS_H_

#include <string>

#include "fabric/membership/member.h"

namespace switchyard::fabric {

inline Member ExpertMember(const std::string& id, const std::string& address) {
  Member member;
  member.instance_id = id;
  member.role = MemberRole::kExpertWorker;
  member.address = address;
  member.model_fingerprint = "f00d";
  member.weight_format = "q8";
  member.protocol_version = 2;
  member.version = "1.0";
  member.host = std::string("host-1");
  member.zone = std::string("zone-1");
  member.state = MemberState::kServing;
  member.expert_bytes = 1000;
  member.budget_experts = 7;
  member.replicas = 2;
  member.holdings = model::ExpertSet(3, 5);
  member.holdings.Insert(1, 4);
  return member;
}

inline Member AttentionMember(const std::string& id,
                              const std::string& address) {
  Member member;
  member.instance_id = id;
  member.role = MemberRole::kAttentionWorker;
  member.address = address;
  member.model_fingerprint = "f00d";
  member.state = MemberState::kServing;
  return member;
}

}  // namespace switchyard::fabric

#endif  // SWITCHYARD_TESTS_FABRIC_FABRIC_MEMBERS_H_
