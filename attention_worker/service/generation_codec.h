// switchyard.v1 generation messages <-> the engine's own types. Pure functions:
// no state, no I/O.
//
// What the wire's types allow and ours do not is refused here; ranges that
// depend on the model or on the engine's options are Engine::Submit's to check
// (core/request_limits.h). Both say INVALID_ARGUMENT with the numbers.
//
// The other end of the same wire: router/client/generation_codec.h.

#ifndef SWITCHYARD_ATTENTION_WORKER_SERVICE_GENERATION_CODEC_H_
#define SWITCHYARD_ATTENTION_WORKER_SERVICE_GENERATION_CODEC_H_

#include <string>

#include "absl/status/statusor.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/core/worker_info.h"
#include "proto/generation.pb.h"

namespace switchyard::attention_worker {

// The deadline is not part of the message (it is the call's); nor is
// model_fingerprint part of a GenerationRequest: CheckFingerprint looks at it.
absl::StatusOr<GenerationRequest> GenerationRequestFromProto(
    const v1::GenerateRequest& request);

// FAILED_PRECONDITION with both sides' values if the request names another
// model.
absl::Status CheckFingerprint(const v1::GenerateRequest& request,
                              const WorkerInfo& info);

// A name of a scope as it is, if it is not too long.
absl::StatusOr<std::string> ScopeFromProto(const std::string& scope);

v1::GenerateReply TokenToProto(const GeneratedToken& token);
v1::GenerateReply FinishedToProto(FinishReason reason,
                                  const GenerationUsage& usage);

void WorkerInfoToProto(const WorkerInfo& info, v1::WorkerInfo* out);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SERVICE_GENERATION_CODEC_H_
