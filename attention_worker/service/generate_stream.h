// One Generate call's reply stream: tokens from the step thread, out through
// gRPC.

#ifndef SWITCHYARD_ATTENTION_WORKER_SERVICE_GENERATE_STREAM_H_
#define SWITCHYARD_ATTENTION_WORKER_SERVICE_GENERATE_STREAM_H_

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/service/request_trace.h"
#include "base/clock.h"
#include "grpcpp/grpcpp.h"
#include "proto/generation.pb.h"

namespace switchyard::attention_worker {

using GenerateReactor = grpc::ServerWriteReactor<v1::GenerateReply>;

// Submits `request` and returns the reactor of its call, which deletes itself
// when gRPC is done with it. It ends when the engine has said its last word, so
// it never goes before its sink. `engine` and `clock` outlive it. `trace` may
// be null.
GenerateReactor* NewGenerateStream(Engine* engine, GenerationRequest request,
                                   size_t max_pending_replies,
                                   std::unique_ptr<RequestTrace> trace,
                                   const Clock* clock);

// A reactor that only ends its call with `status`.
GenerateReactor* NewFailedStream(const absl::Status& status);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SERVICE_GENERATE_STREAM_H_
