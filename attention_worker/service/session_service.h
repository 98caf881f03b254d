// gRPC face of kept states: out of this worker, and into it.

#ifndef SWITCHYARD_ATTENTION_WORKER_SERVICE_SESSION_SERVICE_H_
#define SWITCHYARD_ATTENTION_WORKER_SERVICE_SESSION_SERVICE_H_

#include <atomic>
#include <memory>

#include "attention_worker/core/generation_backend.h"
#include "grpcpp/grpcpp.h"
#include "proto/session.grpc.pb.h"

namespace switchyard::attention_worker {

// Implements switchyard.v1.Session; proto/session.proto is the contract.
// Thread-safe.
class SessionService final : public v1::Session::CallbackService {
 public:
  struct Options {
    GenerationBackend* backend = nullptr;  // not owned; outlives the server
    // States on their way, out and in. Each takes some MiB of buffers.
    int max_transfers = 8;
  };
  explicit SessionService(Options options)
      : options_(options), open_(std::make_shared<std::atomic<int>>(0)) {}

  grpc::ServerWriteReactor<v1::SaveStateReply>* SaveState(
      grpc::CallbackServerContext* context,
      const v1::SaveStateRequest* request) override;

  grpc::ServerReadReactor<v1::LoadStateRequest>* LoadState(
      grpc::CallbackServerContext* context,
      v1::LoadStateReply* response) override;

 private:
  // A place among max_transfers, until the last copy goes; null: none is free.
  std::shared_ptr<void> TakePlace();

  const Options options_;
  const std::shared_ptr<std::atomic<int>> open_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SERVICE_SESSION_SERVICE_H_
