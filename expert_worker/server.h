// A whole expert worker: listens, loads, serves, drains.
//
// Above: main.cc and the tests. Below: service/expert_service.h,
// experts/expert_engine.h.

#ifndef SWITCHYARD_EXPERT_WORKER_SERVER_H_
#define SWITCHYARD_EXPERT_WORKER_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/weight_copies.h"

namespace switchyard::expert_worker {

inline constexpr int64_t kMaxRowsInFlight = 1 << 20;

struct ServerOptions {
  std::string model_dir;
  model::Activations activations = model::Activations::kAuto;
  // What to hold in every layer: at most one of the two; neither: everything.
  std::string slice;    // "1/4"
  std::string experts;  // "0-15,40"
  // Instead of both: what the placement says
  // (fabric/placement/placement.h), which changes as members come and go.
  // Needs routers. Serves what it has from the beginning.
  bool placed = false;
  // Of it: memory for experts; 0: 80% of what there is. Or a number of (layer,
  // expert) pairs, if not 0.
  int64_t memory_bytes = 0;
  int64_t max_experts = 0;
  int replicas = 2;  // the same on all workers
  absl::Duration rebalance_delay = absl::Seconds(1);
  absl::Duration join_delay = absl::Milliseconds(300);
  int load_threads = 0;  // 0: half of `threads`
  // For further copies of hot experts; 0: none.
  int64_t hot_copy_bytes_per_minute = int64_t{4} << 30;

  // Routers to join, host:port (fabric/client/membership_client.h); empty:
  // whoever wants this worker knows it.
  std::vector<std::string> routers;
  // What others reach it at; empty: `host` and `port`, or where the router sees
  // it come from if `host` is all addresses.
  std::string advertise_address;
  // What fails together; empty: the machine's name, and none.
  std::string node;
  std::string zone;

  // An address, or unix:/path: then there is no gRPC port, and metrics are
  // served to this machine only.
  std::string host = "0.0.0.0";
  int port = 0;           // 0 picks a free one
  int metrics_port = -1;  // 0 picks a free one; below 0: no metrics server

  int threads = 0;  // that compute; 0: all CPUs that this process may use
  // How long to look for the next request before sleeping (rpc/queue_poll.h).
  absl::Duration spin;
  // Each thread on one of these alone, if not empty; as many as threads, if
  // that is not 0.
  std::vector<int> cpus;
  // Where weights lie while they are used.
  model::WeightPlacement weights = model::WeightPlacement::kAuto;

  // Activations and outputs of requests that wait or are computed, of all
  // streams together; beyond: RESOURCE_EXHAUSTED.
  int64_t max_queue_bytes = int64_t{512} << 20;
  // On one stream; at most kMaxRowsInFlight.
  int64_t max_rows_in_flight = 16'384;
  // Newest version of expert.proto to speak; 0: the newest there is.
  uint32_t max_protocol_version = 0;

  // Reads every file that SHA256SUMS lists, whole, before anything else.
  bool verify_checksums = false;

  // How long Shutdown lets what is in flight finish.
  absl::Duration drain_timeout = absl::Seconds(10);

  // Called once, from the loading thread, when loading failed
  // (WaitUntilLoaded()).
  std::function<void()> on_load_failed;
};

// States move down this list only; kFailed and kDraining are final.
enum class ServerState {
  kLoading,   // listens; streams are refused with UNAVAILABLE, or, if it is
              // placed, get what there is already
  kServing,   // every weight is in memory, that is wanted for now
  kFailed,    // the checkpoint could not be loaded
  kDraining,  // no new work; what is in flight finishes
};

// Thread-safe.
class Server {
 public:
  // Listens, then loads in a thread of its own.
  // INVALID_ARGUMENT: options. UNAVAILABLE: a port is in use (names it).
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options);
  // Shuts down.
  virtual ~Server() = default;

  virtual int port() const = 0;
  virtual int metrics_port() const = 0;  // -1: none
  virtual ServerState state() const = 0;

  // Waits until loading has ended or `deadline`. OK when serving; the loading's
  // error; DEADLINE_EXCEEDED.
  virtual absl::Status WaitUntilLoaded(absl::Time deadline) = 0;

  // Tells clients to go elsewhere, answers what is in flight, and stops. Waits
  // for a load in progress. Idempotent.
  virtual void Shutdown() = 0;
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_SERVER_H_
