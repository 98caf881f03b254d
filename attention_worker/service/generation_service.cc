#include "attention_worker/service/generation_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "attention_worker/service/generate_stream.h"
#include "attention_worker/service/generation_codec.h"
#include "base/status_macros.h"
#include "rpc/status_conversion.h"
#include "tracing/span/trace_context.h"

namespace switchyard::attention_worker {
namespace {

// The engine's deadline comes a little before the call's, so that its answer
// (which experts were missing) still reaches the client.
absl::Time EngineDeadline(absl::Time call_deadline, absl::Time now,
                          absl::Duration max_request_time) {
  const absl::Duration left = call_deadline - now;
  const absl::Duration margin = std::min(left / 10, absl::Milliseconds(250));
  return std::min(call_deadline - margin, now + max_request_time);
}

absl::StatusOr<GenerationRequest> Decode(const v1::GenerateRequest& message,
                                         const WorkerInfo& info,
                                         absl::Time deadline) {
  SY_RETURN_IF_ERROR(CheckFingerprint(message, info));
  SY_ASSIGN_OR_RETURN(GenerationRequest request,
                      GenerationRequestFromProto(message));
  request.deadline = deadline;
  return request;
}

absl::optional<tracing::TraceContext> SampledTrace(
    const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find("traceparent");
  if (found == context.client_metadata().end()) return absl::nullopt;
  const auto trace = tracing::ParseTraceparent(
      absl::string_view(found->second.data(), found->second.size()));
  return trace && trace->sampled ? trace : absl::nullopt;
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateReply>* GenerationService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* message) {
  const absl::StatusOr<Engine*> engine = options_.backend->engine();
  if (!engine.ok()) return NewFailedStream(engine.status());
  absl::StatusOr<GenerationRequest> request =
      Decode(*message, options_.backend->info(),
             EngineDeadline(absl::FromChrono(context->deadline()),
                            options_.clock->Now(), options_.max_request_time));
  if (!request.ok()) return NewFailedStream(request.status());
  std::unique_ptr<RequestTrace> trace;
  if (const auto parent = SampledTrace(*context);
      parent && options_.spans != nullptr) {
    trace =
        std::make_unique<RequestTrace>(options_.spans, *parent, request->id,
                                       options_.clock->Now(), options_.experts);
  }
  return NewGenerateStream(*engine, *std::move(request),
                           options_.max_pending_replies, std::move(trace),
                           options_.clock);
}

grpc::ServerUnaryReactor* GenerationService::GetWorkerInfo(
    grpc::CallbackServerContext* context,
    const v1::GetWorkerInfoRequest* /*request*/, v1::WorkerInfo* response) {
  WorkerInfoToProto(options_.backend->info(), response);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* GenerationService::FlushCache(
    grpc::CallbackServerContext* context,
    const v1::FlushCacheRequest* /*request*/,
    v1::FlushCacheReply* /*response*/) {
  const absl::StatusOr<Engine*> engine = options_.backend->engine();
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(engine.ok() ? (*engine)->FlushCache()
                                                : engine.status()));
  return reactor;
}

}  // namespace switchyard::attention_worker
