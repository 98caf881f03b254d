// An expert worker at the other end of a network: one long-lived stream, kept
// up.
//
// Above: moe/expert_dispatcher.h. Below: expert_io.h brings the stream's
// events, expert_stream.h has its operations, expert_codec.h turns calls into
// messages, expert_calls.h keeps them, reconnect_backoff.h says when to try
// again. Beside: moe/local_expert_client.h, the same without a network.

#ifndef SWITCHYARD_ATTENTION_WORKER_CLIENT_GRPC_EXPERT_CLIENT_H_
#define SWITCHYARD_ATTENTION_WORKER_CLIENT_GRPC_EXPERT_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/expert_traffic.h"
#include "kernels/matrix.h"
#include "metrics/registry.h"

namespace switchyard::attention_worker {

class ExpertIo;  // expert_io.h

struct GrpcExpertClientOptions {
  std::string address;  // host:port or unix:/path; also the metrics' label

  // What the worker must agree with, or it never gets a row.
  std::string model_fingerprint;  // model/checkpoint.h
  int num_layers = 0;             // L, with the MTP layer: num_expert_layers()
  int num_experts = 0;            // E
  int64_t hidden_size = 0;        // H
  // Of the experts' weights; quantised ones take quantised rows.
  kernels::DType expert_dtype = kernels::DType::kF32;

  std::string instance_id;  // of this process; for the worker's logs
  metrics::Registry* registry = nullptr;  // not owned; outlives this
  // Gets every answered call. Not owned, outlives this; null: nobody counts.
  ExpertTrafficMeter* traffic = nullptr;
  // The queue that all clients of a process share. Null: one of its own.
  std::shared_ptr<ExpertIo> io = nullptr;

  // Rows in flight and waiting to be sent; beyond: RESOURCE_EXHAUSTED. Bounds
  // the memory of this client to about this many rows of H floats, twice.
  int64_t max_queued_rows = 65'536;

  absl::Duration handshake_timeout = absl::Seconds(5);
  // Between attempts after a loss: doubles from min to max.
  absl::Duration min_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(1);
  // After a refused handshake: only another worker at this address will help.
  absl::Duration refused_backoff = absl::Seconds(5);
};

// Connects in the background, and again whenever the stream is lost; until then
// holdings() is empty and health() says why. Calls still unanswered at
// destruction are UNAVAILABLE. Thread-safe.
//
// INVALID_ARGUMENT: an option that cannot be (empty address, sizes below 1).
absl::StatusOr<std::unique_ptr<ExpertClient>> NewGrpcExpertClient(
    GrpcExpertClientOptions options);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CLIENT_GRPC_EXPERT_CLIENT_H_
