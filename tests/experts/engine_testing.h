// What tests of expert engines share: models, engines on them, and work.

#ifndef SWITCHYARD_TESTS_EXPERTS_ENGINE_TESTING_H_
#define SWITCHYARD_TESTS_EXPERTS_ENGINE_TESTING_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/compute_pool.h"
#include "experts/expert_engine.h"
#include "kernels/kernel_contracts.h"
#include "model/checkpoint.h"
#include "model/expert_set.h"

namespace switchyard::experts {

// Ends the test's process if there is none.
std::unique_ptr<model::Checkpoint> Open(const std::string& directory);

// Every expert of every layer that has experts.
model::ExpertSet AllExperts(const model::Checkpoint& checkpoint);

// Holds them all. kernels null: the process's.
std::unique_ptr<ExpertEngine> MakeEngine(
    const model::Checkpoint& checkpoint, ComputePool* pool,
    const kernels::KernelTable* kernels = nullptr);

// Rows, and runs over them, that own what an ExpertBatch points to.
struct Work {
  int layer = 0;
  int64_t num_rows = 0;
  std::vector<float> rows;
  std::vector<ExpertRun> runs;

  ExpertBatch batch() const {
    return {.layer = layer, .num_rows = num_rows, .rows = rows, .runs = runs};
  }
};

// Each row goes through each expert with probability `density`.
Work RandomWork(const model::ModelConfig& config, int layer, int64_t num_rows,
                double density, uint32_t seed);

// The outputs; NaN where none was written.
std::vector<float> Compute(ExpertEngine* engine, const Work& work);

bool SameBits(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace switchyard::experts

#endif  // SWITCHYARD_TESTS_EXPERTS_ENGINE_TESTING_H_
