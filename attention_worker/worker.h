// A whole attention worker but its network: checkpoint, experts' clients,
// model, engine.
//
// Above: server.h adds gRPC and HTTP; the one-process server uses this as it
// is. The only file here that knows how the parts are put together.

#ifndef SWITCHYARD_ATTENTION_WORKER_WORKER_H_
#define SWITCHYARD_ATTENTION_WORKER_WORKER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attention_worker/core/generation_backend.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/reply_pump.h"
#include "attention_worker/speculative/options.h"
#include "attention_worker/state/kv_dtype.h"
#include "metrics/registry.h"
#include "model/checkpoint.h"
#include "model/weight_copies.h"

namespace switchyard::attention_worker {

// Life: Create(); StartLoading(), which returns at once and loads in a thread
// of its own ("sy-load"); then kReady or kWaitingExperts; Drain(); the
// destructor stops, and waits for a load in progress. Thread-safe.
class AttentionWorker : public GenerationBackend {
 public:
  // Clients of expert workers, and what brings their replies
  // (moe/reply_pump.h), those of SetExpertClients' too.
  struct ExpertClients {
    std::vector<std::shared_ptr<ExpertClient>> clients;
    std::shared_ptr<ReplyPump> pump;
  };
  // Makes them, once the checkpoint is open.
  using MakeExpertClients = std::function<absl::StatusOr<ExpertClients>(
      const model::Checkpoint& checkpoint, const std::string& instance_id)>;

  struct Options {
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
    absl::Duration expert_wait_timeout = absl::Seconds(30);
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

  // INVALID_ARGUMENT: no model directory, or a number that cannot be. What is
  // wrong with the checkpoint comes later, from WaitUntilLoaded() and
  // on_loaded.
  static absl::StatusOr<std::unique_ptr<AttentionWorker>> Create(
      Options options);

  // Once, when everybody who is to see the progress can.
  virtual void StartLoading() = 0;

  // OK once loaded; the loading's error; DEADLINE_EXCEEDED.
  virtual absl::Status WaitUntilLoaded(absl::Time deadline) const = 0;

  // From now on these are the expert workers, instead of those there were
  // (moe/expert_dispatcher.h). Also while loading.
  virtual void SetExpertClients(
      std::vector<std::shared_ptr<ExpertClient>> clients) = 0;

  // Rows of each (layer, expert) since the last call, [L * E]; empty if there
  // were none.
  virtual std::vector<uint32_t> TakeExpertHeat() = 0;

  // Takes no more requests and waits until none is left, or for `deadline`.
  // True if none is left.
  virtual bool Drain(absl::Time deadline) = 0;

  // Fails what is left with UNAVAILABLE. A step in progress ends first: it may
  // be waiting for an expert, for expert_wait_timeout at most. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_WORKER_H_
