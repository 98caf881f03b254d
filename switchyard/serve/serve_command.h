// `switchyard serve`: router, attention worker and experts in one process.

#ifndef SWITCHYARD_SWITCHYARD_SERVE_SERVE_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_SERVE_SERVE_COMMAND_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attention_worker/speculative/options.h"

namespace switchyard {

struct ServeOptions {
  std::string model_dir;
  std::string host = "127.0.0.1";
  int port = 8080;               // 0 picks a free one
  int threads = 0;               // 0: as many as the process may use
  std::string cpus;              // one thread on each alone, "0-7,16"; "": any
  std::string weights = "auto";  // or "copy", "map": model/weight_copies.h
  std::string kv_cache_dtype = "auto";  // attention_worker/state/kv_dtype.h
  std::string isa = "auto";
  std::string served_model_name;  // "": the directory's name
  std::string chat_format = "auto";
  int64_t context_length = 0;  // 0: the model's
  int64_t max_running_requests = 64;
  int64_t max_queued_requests = 1024;
  std::vector<std::string> api_keys;  // empty: everybody is welcome
  int64_t chunked_prefill_size = 1024;
  bool prefix_caching = true;
  // Where prefixes are kept beyond memory and process; empty: nowhere. A
  // directory of this process alone, and a budget for what is in it.
  std::string snapshot_dir;
  int64_t snapshot_dir_bytes = int64_t{64} << 30;
  attention_worker::SpeculativeOptions speculative;
  int64_t state_memory_bytes = 0;    // 0: from what is available
  int64_t experts_memory_bytes = 0;  // 0: all experts are in memory
  absl::Duration request_timeout = absl::Minutes(60);
  absl::Duration drain_timeout = absl::Seconds(30);
  bool verify_checksums = false;
};

// Listens first and loads afterwards (/readyz shows progress); serves until
// SIGTERM or SIGINT, then drains. Not OK: bad options, a bad checkpoint, or the
// port is in use.
absl::Status RunServe(const ServeOptions& options);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_SERVE_SERVE_COMMAND_H_
