#include "experts/on_demand_engine.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "base/compute_pool.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard::experts {
namespace {

using ::testing::ElementsAre;
using testing::FixturePath;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::StatusIs;
using Pair = ExpertEngine::Pair;

constexpr int kRows = 3;

class OnDemandEngineTest : public ::testing::Test {
 protected:
  OnDemandEngineTest() {
    auto opened = model::Checkpoint::Open(FixturePath("tiny_b_fp32"));
    EXPECT_THAT(opened, IsOk());
    checkpoint_ = *std::move(opened);
    all_ = model::ExpertSet(checkpoint_->num_expert_layers(),
                            checkpoint_->config().num_experts);
    for (int layer = 0; layer < all_.num_layers(); ++layer) {
      if (!checkpoint_->LayerHasExperts(layer)) continue;
      layer_ = layer;
      for (int e = 0; e < all_.num_experts(); ++e) all_.Insert(layer, e);
    }
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < kRows * hidden(); ++i) {
      rows_.push_back(normal(random));
    }
  }

  std::unique_ptr<OnDemandEngine> Make(model::ExpertSet experts) {
    auto engine = OnDemandEngine::Create(
        {.checkpoint = checkpoint_.get(),
         .experts = std::move(experts),
         .pool = &pool_,
         .on_read = [this](const Pair& pair) { read_.push_back(pair); }});
    EXPECT_THAT(engine, IsOk());
    return *std::move(engine);
  }

  int64_t hidden() const { return checkpoint_->config().hidden_size; }

  absl::StatusOr<std::vector<float>> Compute(ExpertEngine* engine,
                                             const std::vector<int>& experts) {
    std::vector<ExpertRun> runs;
    for (const int expert : experts) runs.push_back({expert, {0, 2}});
    std::vector<float> outputs(2 * experts.size() * hidden(),
                               std::numeric_limits<float>::quiet_NaN());
    const absl::Status status = engine->Compute(
        {.layer = layer_, .num_rows = kRows, .rows = rows_, .runs = runs},
        absl::MakeSpan(outputs));
    if (!status.ok()) return status;
    return outputs;
  }

  InlinePool pool_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  model::ExpertSet all_;
  int layer_ = 0;  // one that has experts
  std::vector<float> rows_;
  std::vector<Pair> read_;
};

TEST_F(OnDemandEngineTest, ReadsWhatIsAskedForOnceAndGivesTheSameBits) {
  auto plain = ExpertEngine::Create({.checkpoint = checkpoint_.get(),
                                     .experts = all_,
                                     .pool = &pool_,
                                     .progress = nullptr});
  ASSERT_THAT(plain, IsOk());
  const auto engine = Make(all_);
  EXPECT_EQ(engine->holdings(), all_);
  EXPECT_EQ(engine->resident_bytes(), 0);
  EXPECT_THAT(read_, IsEmpty());
  for (int i = 0; i < 2; ++i) {
    const auto outputs = Compute(engine.get(), {1, 3});
    const auto expected = Compute(plain->get(), {1, 3});
    ASSERT_THAT(outputs, IsOk());
    ASSERT_THAT(expected, IsOk());
    EXPECT_EQ(std::memcmp(outputs->data(), expected->data(),
                          outputs->size() * sizeof(float)),
              0);
  }
  EXPECT_THAT(read_, ElementsAre(Pair{layer_, 1}, Pair{layer_, 3}));
  EXPECT_EQ(engine->resident_bytes(), 2 * engine->expert_bytes());
  EXPECT_THAT(Compute(engine.get(), {0, 1}), IsOk());
  EXPECT_EQ(read_.size(), 3);
}

// With room for fewer experts than there are, and than some batches have.
TEST_F(OnDemandEngineTest, WithinABudgetTheLeastRecentlyUsedGoes) {
  auto plain = ExpertEngine::Create({.checkpoint = checkpoint_.get(),
                                     .experts = all_,
                                     .pool = &pool_,
                                     .progress = nullptr});
  ASSERT_THAT(plain, IsOk());
  const int room = checkpoint_->config().num_experts_per_tok;
  ASSERT_GT(all_.num_experts(), room + 1);
  const int64_t expert_bytes = (*plain)->expert_bytes();
  int64_t hits = 0, reads = 0;
  auto made = OnDemandEngine::Create(
      {.checkpoint = checkpoint_.get(),
       .experts = all_,
       .pool = &pool_,
       .memory_bytes = room * expert_bytes + expert_bytes / 2,
       .on_read = [this](const Pair& pair) { read_.push_back(pair); },
       .on_batch =
           [&](int64_t h, int64_t r, absl::Duration) {
             hits += h;
             reads += r;
           }});
  ASSERT_THAT(made, IsOk());
  OnDemandEngine* const engine = made->get();
  ASSERT_EQ(engine->room(), room);
  const auto expect_same = [&](const std::vector<int>& experts) {
    const auto outputs = Compute(engine, experts);
    const auto expected = Compute(plain->get(), experts);
    ASSERT_THAT(outputs, IsOk());
    ASSERT_THAT(expected, IsOk());
    EXPECT_EQ(std::memcmp(outputs->data(), expected->data(),
                          outputs->size() * sizeof(float)),
              0);
    EXPECT_LE(engine->resident_bytes(), room * expert_bytes);
  };
  std::vector<int> full;
  for (int e = 0; e < room; ++e) full.push_back(e);
  expect_same(full);
  expect_same({0});
  expect_same({room});  // 1 goes
  EXPECT_EQ(static_cast<int>(read_.size()), room + 1);
  expect_same({0, room});
  EXPECT_EQ(static_cast<int>(read_.size()), room + 1);
  expect_same({1, room});  // 2 goes
  EXPECT_EQ(read_.back(), (Pair{layer_, 1}));
  EXPECT_EQ(hits, 4);
  EXPECT_EQ(reads, room + 2);
  // More than there is room for.
  std::vector<int> every;
  for (int e = 0; e < all_.num_experts(); ++e) every.push_back(e);
  expect_same(every);
  expect_same(every);
  expect_same({0});
}

TEST_F(OnDemandEngineTest, TooLittleMemoryIsRefusedWithTheNumbers) {
  EXPECT_THAT(OnDemandEngine::Create({.checkpoint = checkpoint_.get(),
                                      .experts = all_,
                                      .pool = &pool_,
                                      .memory_bytes = 1000})
                  .status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       ::testing::HasSubstr("a token goes through")));
}

TEST_F(OnDemandEngineTest, WhatItMayNotBeAskedForIsRefused) {
  model::ExpertSet some = all_;
  some.Erase(layer_, 2);
  const auto engine = Make(some);
  EXPECT_THAT(Compute(engine.get(), {1, 2}).status(),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(Compute(engine.get(), {1}), IsOk());
}

TEST_F(OnDemandEngineTest, OptionsOfAnotherModelAreRefused) {
  EXPECT_THAT(OnDemandEngine::Create({.checkpoint = checkpoint_.get(),
                                      .experts = model::ExpertSet(1, 1),
                                      .pool = &pool_,
                                      .on_read = nullptr})
                  .status(),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace switchyard::experts
