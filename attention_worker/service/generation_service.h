// gRPC face of the engine: decode, submit, encode, finish. Computes nothing and
// blocks nowhere.

#ifndef SWITCHYARD_ATTENTION_WORKER_SERVICE_GENERATION_SERVICE_H_
#define SWITCHYARD_ATTENTION_WORKER_SERVICE_GENERATION_SERVICE_H_

#include <cstddef>

#include "absl/time/time.h"
#include "attention_worker/core/generation_backend.h"
#include "attention_worker/moe/expert_traffic.h"
#include "base/clock.h"
#include "grpcpp/grpcpp.h"
#include "proto/generation.grpc.pb.h"
#include "tracing/span/span.h"

namespace switchyard::attention_worker {

// Implements switchyard.v1.Generation; proto/generation.proto is the contract.
//
// A call that is cancelled or whose deadline passes cancels its sequence. A
// reader that is slower than the engine for so long that `max_pending_replies`
// wait gets RESOURCE_EXHAUSTED. Thread-safe: gRPC calls it from many threads.
class GenerationService final : public v1::Generation::CallbackService {
 public:
  struct Options {
    GenerationBackend* backend = nullptr;  // not owned; outlives the server
    size_t max_pending_replies = 4096;     // of one stream
    // No request runs longer, whatever its deadline.
    absl::Duration max_request_time = absl::InfiniteDuration();
    const Clock* clock = Clock::Real();
    // Of requests that come with a traceparent that says so; null: no traces.
    // Not owned; outlives the server.
    tracing::SpanSink* spans = nullptr;
    // What expert workers do; for those spans. Not owned; outlives the server.
    // Null: there are none.
    const ExpertTrafficMeter* experts = nullptr;
  };
  explicit GenerationService(Options options) : options_(options) {}

  grpc::ServerWriteReactor<v1::GenerateReply>* Generate(
      grpc::CallbackServerContext* context,
      const v1::GenerateRequest* request) override;

  grpc::ServerUnaryReactor* GetWorkerInfo(
      grpc::CallbackServerContext* context,
      const v1::GetWorkerInfoRequest* request,
      v1::WorkerInfo* response) override;

  grpc::ServerUnaryReactor* FlushCache(grpc::CallbackServerContext* context,
                                       const v1::FlushCacheRequest* request,
                                       v1::FlushCacheReply* response) override;

 private:
  const Options options_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SERVICE_GENERATION_SERVICE_H_
