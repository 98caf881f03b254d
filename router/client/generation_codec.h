// switchyard.v1 generation messages <-> the router's own types. Pure functions:
// no state, no I/O. Past this file, what a worker said is known to be well
// formed.
//
// The other end of the same wire: attention_worker/service/generation_codec.h.

#ifndef SWITCHYARD_ROUTER_CLIENT_GENERATION_CODEC_H_
#define SWITCHYARD_ROUTER_CLIENT_GENERATION_CODEC_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/generation.pb.h"
#include "router/client/attention_client.h"

namespace switchyard::router {

// `model_fingerprint` may be empty: any. The deadline is not part of the
// message (it is the call's). INVALID_ARGUMENT: a number that the message
// cannot hold (a negative id, max_tokens above 2^32 - 1).
absl::StatusOr<v1::GenerateRequest> TokenRequestToProto(
    const TokenRequest& request, absl::string_view model_fingerprint);

// These three: INTERNAL with the field and its value for what a worker of this
// protocol never sends.
absl::StatusOr<TokenEvent> TokenEventFromProto(const v1::Token& token);

struct TokenOutcome {
  TokenFinish finish = TokenFinish::kStop;
  TokenUsage usage;
};
absl::StatusOr<TokenOutcome> TokenOutcomeFromProto(
    const v1::Finished& finished);

absl::StatusOr<AttentionWorkerInfo> AttentionWorkerInfoFromProto(
    const v1::WorkerInfo& info);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_CLIENT_GENERATION_CODEC_H_
