#include "tests/experts/engine_testing.h"

#include <cstring>
#include <limits>
#include <random>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::experts {

using testing::IsOk;

std::unique_ptr<model::Checkpoint> Open(const std::string& directory) {
  auto checkpoint = model::Checkpoint::Open(directory);
  EXPECT_THAT(checkpoint, IsOk());
  return *std::move(checkpoint);
}

model::ExpertSet AllExperts(const model::Checkpoint& checkpoint) {
  model::ExpertSet set(checkpoint.num_expert_layers(),
                       checkpoint.config().num_experts);
  for (int layer = 0; layer < set.num_layers(); ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    for (int e = 0; e < set.num_experts(); ++e) set.Insert(layer, e);
  }
  return set;
}

std::unique_ptr<ExpertEngine> MakeEngine(const model::Checkpoint& checkpoint,
                                         ComputePool* pool,
                                         const kernels::KernelTable* kernels) {
  ExpertEngine::Options options;
  options.checkpoint = &checkpoint;
  options.experts = AllExperts(checkpoint);
  options.pool = pool;
  options.kernels = kernels;
  auto engine = ExpertEngine::Create(std::move(options));
  EXPECT_THAT(engine, IsOk());
  return *std::move(engine);
}

Work RandomWork(const model::ModelConfig& config, int layer, int64_t num_rows,
                double density, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::bernoulli_distribution chosen(density);
  Work work{layer, num_rows, {}, {}};
  for (int64_t i = 0; i < num_rows * config.hidden_size; ++i) {
    work.rows.push_back(normal(random));
  }
  for (int e = 0; e < config.num_experts; ++e) {
    ExpertRun run{e, {}};
    for (int32_t row = 0; row < num_rows; ++row) {
      if (chosen(random)) run.rows.push_back(row);
    }
    if (!run.rows.empty()) work.runs.push_back(std::move(run));
  }
  return work;
}

std::vector<float> Compute(ExpertEngine* engine, const Work& work) {
  const int64_t hidden =
      work.num_rows == 0
          ? 0
          : static_cast<int64_t>(work.rows.size()) / work.num_rows;
  // NaN, so that an output that is never written is seen.
  std::vector<float> outputs(work.batch().num_outputs() * hidden,
                             std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(engine->Compute(work.batch(), absl::MakeSpan(outputs)), IsOk());
  return outputs;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace switchyard::experts
