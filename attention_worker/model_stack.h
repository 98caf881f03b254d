// All that serves one checkpoint, from its files to the engine.
//
// The only file here that knows how the parts are put together. worker.h says
// when, and to whom the result is shown.

#ifndef SWITCHYARD_ATTENTION_WORKER_MODEL_STACK_H_
#define SWITCHYARD_ATTENTION_WORKER_MODEL_STACK_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/core/engine_metrics.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/layers/mtp_head.h"
#include "attention_worker/layers/step_timer.h"
#include "attention_worker/load_progress.h"
#include "attention_worker/memory_plan.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/heat_meter.h"
#include "attention_worker/state/snapshot_store.h"
#include "attention_worker/worker_options.h"
#include "base/compute_pool.h"
#include "experts/expert_engine.h"
#include "model/checkpoint.h"

namespace switchyard::attention_worker {

// One thread calls OpenCheckpoint(), MakeExperts() and MakeEngine(), in this
// order, each once; what one of them made may be used by all threads
// afterwards, as its own header says. An error of one ends the load.
class ModelStack {
 public:
  // `options` and `progress` are not owned and outlive this. `instance_id` is
  // what expert workers are told.
  ModelStack(const AttentionWorkerOptions& options, std::string instance_id,
             LoadProgress* progress);
  // The engine is to be stopped before.
  ~ModelStack();

  // Opens (and, if asked to, verifies) the files and divides the memory.
  absl::Status OpenCheckpoint();
  // Reads the routed experts, or makes the clients of those who hold them; the
  // dispatcher has none of these clients yet.
  absl::StatusOr<std::vector<std::shared_ptr<ExpertClient>>> MakeExperts();
  // Reads the rest and starts the engine.
  absl::Status MakeEngine();

  const model::Checkpoint& checkpoint() const { return *checkpoint_; }
  const MemoryPlan& plan() const { return plan_; }
  ExpertDispatcher* dispatcher() const { return dispatcher_.get(); }
  HeatMeter* heat() const { return heat_.get(); }
  Engine* engine() const { return engine_.get(); }

 private:
  bool drafts() const { return max_draft_tokens_ > 0; }
  // There are more experts than memory is given for.
  bool ReadsOnDemand() const {
    return !options_.expert_clients && options_.experts_memory_bytes > 0;
  }
  absl::Status MakeExpertCache();
  absl::StatusOr<MemoryPlan> DecideMemory();
  absl::StatusOr<std::shared_ptr<ExpertClient>> MakeFallback();
  absl::Status OpenStore();
  absl::Status StartEngine();

  const AttentionWorkerOptions& options_;
  const std::string instance_id_;
  LoadProgress* const progress_;

  // In the order in which they rest on one another.
  std::unique_ptr<model::Checkpoint> checkpoint_;
  MemoryPlan plan_;
  int max_draft_tokens_ = 0;
  std::unique_ptr<ComputePool> pool_;
  std::unique_ptr<ComputePool> reading_pool_;  // null: all are in memory
  std::unique_ptr<experts::ExpertEngine> local_experts_;
  std::unique_ptr<ExpertDispatcher> dispatcher_;
  std::unique_ptr<HeatMeter> heat_;  // what the model dispatches through
  StepTimer timer_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<MtpHead> mtp_head_;     // null: nobody drafts
  std::unique_ptr<SnapshotStore> store_;  // null: memory alone
  std::unique_ptr<EngineMetrics> metrics_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MODEL_STACK_H_
