// switchyard.v1 membership messages <-> fabric/membership's types. Pure
// functions; what a peer can get wrong is refused here.

#ifndef SWITCHYARD_FABRIC_WIRE_MEMBERSHIP_CODEC_H_
#define SWITCHYARD_FABRIC_WIRE_MEMBERSHIP_CODEC_H_

#include "absl/status/statusor.h"
#include "fabric/membership/member.h"
#include "proto/membership.pb.h"

namespace switchyard::fabric {

v1::Member MemberToProto(const Member& member);
// INVALID_ARGUMENT: names the field. The address may lack its host.
absl::StatusOr<Member> MemberFromProto(const v1::Member& member);

v1::ViewUpdate ViewUpdateToProto(const ViewUpdate& update);
absl::StatusOr<ViewUpdate> ViewUpdateFromProto(const v1::ViewUpdate& update);

}  // namespace switchyard::fabric

#endif  // SWITCHYARD_FABRIC_WIRE_MEMBERSHIP_CODEC_H_
