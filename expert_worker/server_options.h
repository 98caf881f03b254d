// What an expert worker is told when it is made.

#ifndef SWITCHYARD_EXPERT_WORKER_SERVER_OPTIONS_H_
#define SWITCHYARD_EXPERT_WORKER_SERVER_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "fabric/wire/expert_terms.h"
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

// INVALID_ARGUMENT says which are out of range or contradict each other.
absl::Status CheckOptions(const ServerOptions& options);

// Of expert.proto, that a worker with these options speaks.
fabric::ProtocolRange VersionsOf(const ServerOptions& options);

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_SERVER_OPTIONS_H_
