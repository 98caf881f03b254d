// A whole attention worker: listens, loads, serves, drains.
//
// Above: main.cc and the tests. Below: worker.h without the network,
// service/generation_service.h for gRPC.

#ifndef SWITCHYARD_ATTENTION_WORKER_SERVER_H_
#define SWITCHYARD_ATTENTION_WORKER_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attention_worker/core/worker_info.h"
#include "attention_worker/worker_options.h"

namespace switchyard::attention_worker {

struct ServerOptions {
  // Its expert clients, registry and callbacks are the server's to set.
  AttentionWorkerOptions worker;

  // An address, or unix:/path: then there is no gRPC port, and metrics are
  // served to this machine only.
  std::string host = "0.0.0.0";
  int port = 0;           // 0 picks a free one
  int metrics_port = -1;  // 0 picks a free one; below 0: no metrics server

  // host:port or unix:/path, with commas between, of expert workers; empty: of
  // those that the routers know, or, without routers, none; "local": none. With
  // none the experts are computed here.
  std::string expert_workers;
  // Routers to join, host:port (fabric/client/membership_client.h).
  std::vector<std::string> routers;
  // What they reach this worker at; empty: `host` and `port`, or where they see
  // it come from if `host` is all addresses.
  std::string advertise_address;
  // How long to look for their replies before sleeping (rpc/queue_poll.h).
  // Negative: not at all if one of them is on this machine, whose CPUs it needs
  // as well; else for longer than a small frame takes there and back.
  absl::Duration spin = absl::Microseconds(-1);
  // "wait" for an expert worker that holds an expert, or compute it "local"ly.
  std::string expert_fallback = "wait";
  absl::Duration max_request_time = absl::InfiniteDuration();

  // host:port of an OpenTelemetry collector (OTLP over gRPC); empty: no traces.
  std::string otlp_traces_endpoint;

  // How long Shutdown lets requests finish.
  absl::Duration drain_timeout = absl::Seconds(30);

  // Called once, from the loading thread, when loading failed
  // (WaitUntilLoaded()).
  std::function<void()> on_load_failed;
};

// Thread-safe.
class Server {
 public:
  // Listens, then loads in a thread of its own. Health says SERVING while every
  // expert has a holder.
  // INVALID_ARGUMENT: options. UNAVAILABLE: a port is in use (names it).
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options);
  // Shuts down.
  virtual ~Server() = default;

  virtual int port() const = 0;
  virtual int metrics_port() const = 0;  // -1: none
  virtual WorkerInfo info() const = 0;

  // OK once loaded; the loading's error; DEADLINE_EXCEEDED.
  virtual absl::Status WaitUntilLoaded(absl::Time deadline) const = 0;

  // Refuses new requests, lets those that run finish (drain_timeout), fails the
  // rest with UNAVAILABLE, and stops. Waits for a load in progress. Idempotent.
  virtual void Shutdown() = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SERVER_H_
