// What an attention worker is told when it is made.

#ifndef SWITCHYARD_ATTENTION_WORKER_WORKER_OPTIONS_H_
#define SWITCHYARD_ATTENTION_WORKER_WORKER_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/reply_pump.h"
#include "attention_worker/speculative/options.h"
#include "attention_worker/state/kv_dtype.h"
#include "metrics/registry.h"
#include "model/checkpoint.h"
#include "model/weight_copies.h"

namespace switchyard::attention_worker {

// Clients of expert workers, and what brings their replies
// (moe/reply_pump.h), those of SetExpertClients' too.
struct ExpertClients {
  std::vector<std::shared_ptr<ExpertClient>> clients;
  std::shared_ptr<ReplyPump> pump;
};
// Makes them, once the checkpoint is open.
using MakeExpertClients = std::function<absl::StatusOr<ExpertClients>(
    const model::Checkpoint& checkpoint, const std::string& instance_id)>;

struct AttentionWorkerOptions {
  std::string model_dir;
  // Null: this process computes the experts itself, with the same threads.
  MakeExpertClients expert_clients;
  // SetExpertClients will be called, so there need be none at first.
  bool expert_clients_change = false;
  // Called once, by the loading thread, when the checkpoint is open; an error
  // ends the loading.
  std::function<absl::Status(const model::Checkpoint& checkpoint,
                             const std::string& instance_id)>
      on_opened;
  int threads = 0;  // that compute; 0: all CPUs that this process may use
  // Each thread on one of these alone, if not empty; as many as threads, if
  // that is not 0.
  std::vector<int> cpus;
  // Where weights lie while they are used.
  model::WeightPlacement weights = model::WeightPlacement::kAuto;
  // The same on all workers of a model: it changes tokens.
  KvCacheDType kv_cache_dtype = KvCacheDType::kAuto;
  model::Activations activations = model::Activations::kAuto;

  int64_t max_model_len = 0;       // 0: the model's, or what memory allows
  int64_t state_memory_bytes = 0;  // 0: half of what the weights leave
  int64_t max_running_requests = 64;
  int64_t max_queued_requests = 1024;
  int64_t chunked_prefill_size = 1024;
  bool prefix_caching = true;
  // Where prefixes are kept beyond memory and process; empty: nowhere. A
  // directory of this process alone, and a budget for what is in it.
  std::string snapshot_dir;
  int64_t snapshot_dir_bytes = int64_t{64} << 30;
  SpeculativeOptions speculative;
  // In process: bytes of experts that are in memory; the others are read from
  // disk when they are wanted. 0: all of them are.
  int64_t experts_memory_bytes = 0;
  absl::Duration expert_wait_timeout = absl::Seconds(30);
  double hedge_share = 0.05;   // ExpertDispatcherOptions; 0: no hedging
  double verify_fraction = 0;  // ExpertDispatcherOptions
  int join_probes = 0;         // HolderHealthOptions
  // What no expert worker holds is computed here, from the mapped files, read
  // when it is wanted first; false: it is waited for.
  bool local_fallback = false;
  bool verify_checksums = false;  // against SHA256SUMS, before loading

  std::string model_name;  // label of the metrics; "": the directory's name
  metrics::Registry* registry = nullptr;  // not owned; outlives this

  // Called once, by the loading thread, when loading has ended.
  std::function<void(const absl::Status& status)> on_loaded;
};

// INVALID_ARGUMENT: no model directory, or a number that cannot be; says which.
absl::Status CheckOptions(const AttentionWorkerOptions& options);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_WORKER_OPTIONS_H_
