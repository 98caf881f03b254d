// Who is there: what a worker says of itself, and what a router says of all.
//
// Above: fabric/client brings views, router/membership keeps them. On the wire:
// proto/membership.proto.

#ifndef SWITCHYARD_FABRIC_MEMBERSHIP_MEMBER_H_
#define SWITCHYARD_FABRIC_MEMBERSHIP_MEMBER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "model/expert_set.h"

namespace switchyard::fabric {

enum class MemberRole { kAttentionWorker, kExpertWorker };
// Moves down this list only.
enum class MemberState { kLoading, kServing, kDraining };

// "attention_worker", "expert_worker"; "loading", "serving", "draining".
absl::string_view MemberRoleName(MemberRole role);
absl::string_view MemberStateName(MemberState state);

// The fields are those of proto/membership.proto.
struct Member {
  std::string instance_id;
  MemberRole role = MemberRole::kAttentionWorker;
  std::string address;
  std::string model_fingerprint;
  std::string weight_format;
  uint32_t protocol_version = 0;
  std::string version;
  std::string host;
  std::string zone;
  MemberState state = MemberState::kLoading;
  int64_t started_unix_millis = 0;
  uint64_t revision = 0;

  // Of expert workers.
  int64_t expert_bytes = 0;
  int64_t budget_experts = 0;  // 0: its holdings are fixed
  int replicas = 0;
  model::ExpertSet holdings;

  friend bool operator==(const Member&, const Member&) = default;
};

inline constexpr size_t kMaxInstanceIdBytes = 64;
inline constexpr size_t kMaxMemberTextBytes = 256;
inline constexpr int64_t kMaxMemberPairs = int64_t{1} << 20;

// INVALID_ARGUMENT: what the contract forbids; names the field.
absl::Status CheckMember(const Member& member);

// What changed at one router.
struct ViewUpdate {
  uint64_t version = 0;
  std::string router_id;
  bool complete = false;
  bool settled = false;
  std::vector<Member> members;
  std::vector<std::string> removed;
  std::vector<uint32_t> heat;  // empty: no news
  absl::Duration heartbeat;
  absl::Duration lease;
};

// Everybody, as one process sees it.
struct View {
  // False: some may be missing yet; nothing should be given up for that.
  bool settled = false;
  std::vector<Member> members;  // ascending by instance id
  std::vector<uint32_t> heat;   // [L * E], or empty

  const Member* Find(absl::string_view instance_id) const;
};

}  // namespace switchyard::fabric

#endif  // SWITCHYARD_FABRIC_MEMBERSHIP_MEMBER_H_
