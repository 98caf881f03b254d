// A model ready to be measured: the parts that serve, wired as in a server, but
// stepped by hand.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_BENCH_MODEL_H_
#define SWITCHYARD_SWITCHYARD_BENCH_BENCH_MODEL_H_

#include <sched.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/layers/step_timer.h"
#include "attention_worker/moe/expert_client.h"
#include "base/compute_pool.h"
#include "experts/expert_engine.h"
#include "kernels/kv_rows.h"
#include "metrics/registry.h"
#include "model/checkpoint.h"
#include "model/weight_copies.h"
#include "switchyard/bench/counting_dispatcher.h"
#include "switchyard/bench/worker_processes.h"

namespace switchyard::attention_worker {
class ExpertIo;
}

namespace switchyard::bench {

// One thread's.
class BenchModel {
 public:
  struct Options {
    const model::Checkpoint* checkpoint = nullptr;  // not owned; outlives this
    int threads = 1;        // that compute in this process
    std::vector<int> cpus;  // theirs, one each; empty: any
    model::WeightPlacement weights = model::WeightPlacement::kAuto;
    kernels::KvDType kv_dtype = kernels::KvDType::kF32;
    // No workers: the experts are computed here.
    WorkerProcesses::Options workers;
    // What is being done, and how far it is. May be called from other threads.
    std::function<void(const char* doing, int64_t done, int64_t total)>
        progress;
  };

  // Loads, and waits until every expert has a holder. Errors are those of
  // ExpertEngine::Create, ModelRunner::Create and
  // WorkerProcesses::Start.
  static absl::StatusOr<std::unique_ptr<BenchModel>> Create(Options options);
  ~BenchModel();

  const model::Checkpoint& checkpoint() const { return *checkpoint_; }
  attention_worker::ModelRunner& runner() { return *runner_; }
  const CountingDispatcher& dispatcher() const { return *counting_; }
  attention_worker::StepTimer& timer() { return timer_; }
  ComputePool& pool() { return *pool_; }
  // Null: the experts are in this process.
  const WorkerProcesses* workers() const { return workers_.get(); }

 private:
  BenchModel() = default;
  absl::Status MakeExperts(const Options& options);
  absl::Status WaitForExperts();

  // The CPUs of the thread that calls Create and steps, given back at the end:
  // what it does later must not be left on one of them.
  class Affinity {
   public:
    Affinity();
    ~Affinity();
    Affinity(const Affinity&) = delete;
    Affinity& operator=(const Affinity&) = delete;

   private:
    cpu_set_t cpus_;
  };
  const Affinity affinity_;

  // In the order in which they rest on one another.
  std::unique_ptr<metrics::Registry> registry_;
  std::unique_ptr<ComputePool> pool_;
  const model::Checkpoint* checkpoint_ = nullptr;
  std::unique_ptr<WorkerProcesses> workers_;
  std::unique_ptr<experts::ExpertEngine> experts_;
  std::shared_ptr<attention_worker::ExpertIo> io_;  // null: no clients of it
  std::vector<std::shared_ptr<attention_worker::ExpertClient>> clients_;
  std::unique_ptr<attention_worker::ExpertDispatcher> dispatcher_;
  std::unique_ptr<CountingDispatcher> counting_;
  attention_worker::StepTimer timer_;
  std::unique_ptr<attention_worker::ModelRunner> runner_;
};

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_BENCH_MODEL_H_
