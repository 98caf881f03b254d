// The calls of switchyard.v1.Session: a state in parts, between gRPC and the
// step thread.

#ifndef SWITCHYARD_ATTENTION_WORKER_SERVICE_SESSION_STREAMS_H_
#define SWITCHYARD_ATTENTION_WORKER_SERVICE_SESSION_STREAMS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/core/state_transfers.h"
#include "grpcpp/grpcpp.h"
#include "proto/session.pb.h"

namespace switchyard::attention_worker {

using SaveReactor = grpc::ServerWriteReactor<v1::SaveStateReply>;
using LoadReactor = grpc::ServerReadReactor<v1::LoadStateRequest>;

struct SaveOrder {
  std::string model;  // fingerprint
  // One of them: whose longest kept prefix, or which request's state.
  KeptPrefix prefix;
  std::string request_id;
  // Given back before the call's end is told: who hears of it may ask again.
  std::shared_ptr<void> place;
};
struct LoadOrder {
  std::string model;
  int64_t max_tokens = 0;  // of a sequence here
  std::shared_ptr<void> place;
};

// Reactors that delete themselves when gRPC is done with them. `engine`
// outlives them, `response` is gRPC's.
SaveReactor* NewSaveStream(Engine* engine, SaveOrder order);
LoadReactor* NewLoadStream(Engine* engine, LoadOrder order,
                           v1::LoadStateReply* response);

// These only end their call with `status`.
SaveReactor* NewSaveStream(const absl::Status& status);
LoadReactor* NewLoadStream(const absl::Status& status);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SERVICE_SESSION_STREAMS_H_
