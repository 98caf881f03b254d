// A real model's experts, dealt out over any number of holders: the same bits.

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/local_expert_client.h"
#include "base/compute_pool.h"
#include "experts/expert_engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "model/checkpoint.h"
#include "tests/attention_worker/moe/dispatch_problem.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::testing::Each;

class PlacementBitsTest : public ::testing::Test {
 protected:
  // Dispatches to holders of `deal`, which together hold everything.
  std::vector<float> Dispatch(const DispatchProblem& problem,
                              const std::vector<model::ExpertSet>& deal) {
    auto registry = metrics::Registry::Create();
    std::vector<std::unique_ptr<experts::ExpertEngine>> engines;
    ExpertDispatcherOptions options;
    for (const model::ExpertSet& part : deal) {
      experts::ExpertEngine::Options engine_options;
      engine_options.checkpoint = checkpoint_.get();
      engine_options.experts = part;
      engine_options.pool = &pool_;
      auto engine = experts::ExpertEngine::Create(engine_options);
      EXPECT_THAT(engine, IsOk());
      engines.push_back(*std::move(engine));
      options.clients.push_back(std::make_shared<LocalExpertClient>(
          engines.back().get(), registry.get(),
          absl::StrCat("part ", engines.size())));
    }
    options.required = All();
    options.registry = registry.get();
    auto dispatcher = NewExpertDispatcher(std::move(options));
    EXPECT_TRUE(dispatcher->MissingExperts().empty());
    const DispatchResult result =
        dispatcher->Dispatch(problem.Request(), [] {});
    EXPECT_THAT(result.sequence_status, Each(IsOk()));
    return Outputs(result, problem.hidden_size);
  }

  model::ExpertSet Empty() const {
    return {checkpoint_->num_expert_layers(),
            checkpoint_->config().num_experts};
  }
  model::ExpertSet All() const {
    model::ExpertSet all = Empty();
    for (int l = 0; l < all.num_layers(); ++l) {
      for (int e = 0; e < all.num_experts(); ++e) {
        if (checkpoint_->LayerHasExperts(l)) all.Insert(l, e);
      }
    }
    return all;
  }

  std::unique_ptr<model::Checkpoint> checkpoint_ =
      model::Checkpoint::Open(testing::ModelPath("demo")).value();
  InlinePool pool_;
};

TEST_F(PlacementBitsTest, AnyDealOfTheDemoModel) {
  std::mt19937 random(5);
  const model::ModelConfig& config = checkpoint_->config();
  const DispatchProblem problem = DispatchProblem::Random(
      random, checkpoint_->num_expert_layers(), config.num_experts,
      /*num_rows=*/9, config.num_experts_per_tok, config.hidden_size,
      /*num_sequences=*/2, absl::Now() + absl::Seconds(100));
  const std::vector<float> expected = Dispatch(problem, {All()});
  float largest = 0;
  for (const float x : expected) largest = std::max(largest, std::abs(x));
  EXPECT_GT(largest, 0);  // NaN, too, would fail here or below
  for (const int num_holders : {2, 3, 5, 8}) {
    for (int round = 0; round < 3; ++round) {
      std::vector<model::ExpertSet> deal(num_holders, Empty());
      for (int l = 0; l < All().num_layers(); ++l) {
        for (int e = 0; e < config.num_experts; ++e) {
          deal[random() % num_holders].Insert(l, e);
        }
      }
      ASSERT_EQ(Dispatch(problem, deal), expected) << num_holders;
    }
  }
  // Row by row, as in a batch of one.
  for (int64_t t = 0; t < problem.num_rows; ++t) {
    DispatchProblem row = problem;
    const int64_t h = config.hidden_size;
    const int k = config.num_experts_per_tok;
    row.num_rows = 1;
    row.rows.assign(problem.rows.begin() + t * h,
                    problem.rows.begin() + (t + 1) * h);
    row.experts.assign(problem.experts.begin() + t * k,
                       problem.experts.begin() + (t + 1) * k);
    row.sequence_of_row = {0};
    const std::vector<float> alone = Dispatch(row, {All()});
    EXPECT_TRUE(
        std::equal(alone.begin(), alone.end(), expected.begin() + t * k * h));
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
