// `switchyard serve`: router, attention worker and experts in one process.

#ifndef SWITCHYARD_SWITCHYARD_SERVE_SERVE_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_SERVE_SERVE_COMMAND_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attention_worker/speculative/options.h"
#include "router/server.h"

namespace switchyard {

struct ServeOptions {
  // The front, and what all share: the model, its context, its traces.
  // `workers` is this command's to fill.
  router::RouterServer::Options router;
  int threads = 0;               // 0: as many as the process may use
  std::string cpus;              // one thread on each alone, "0-7,16"; "": any
  std::string weights = "auto";  // or "copy", "map": model/weight_copies.h
  std::string activations = "auto";     // model/checkpoint.h
  std::string kv_cache_dtype = "auto";  // attention_worker/state/kv_dtype.h
  std::string isa = "auto";
  int64_t max_running_requests = 64;
  int64_t chunked_prefill_size = 1024;
  bool prefix_caching = true;
  // Where prefixes are kept beyond memory and process; empty: nowhere. A
  // directory of this process alone, and a budget for what is in it.
  std::string snapshot_dir;
  int64_t snapshot_dir_bytes = int64_t{64} << 30;
  attention_worker::SpeculativeOptions speculative;
  int64_t state_memory_bytes = 0;    // 0: from what is available
  int64_t experts_memory_bytes = 0;  // 0: all experts are in memory
  absl::Duration drain_timeout = absl::Seconds(30);
  bool verify_checksums = false;
};

// Listens first and loads afterwards (/readyz shows progress); serves until
// SIGTERM or SIGINT, then drains. Not OK: bad options, a bad checkpoint, or the
// port is in use.
absl::Status RunServe(const ServeOptions& options);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_SERVE_SERVE_COMMAND_H_
