// Experts that come and go while others are computed.

#include <atomic>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "base/compute_pool.h"
#include "base/thread.h"
#include "experts/expert_engine.h"
#include "experts/expert_slots.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/quantized_checkpoint.h"

namespace switchyard::experts {
namespace {

using testing::FixturePath;
using testing::IsOk;
using testing::StatusIs;
using Pair = ExpertEngine::Pair;

model::ExpertSet Nothing(const model::Checkpoint& checkpoint) {
  return model::ExpertSet(checkpoint.num_expert_layers(),
                          checkpoint.config().num_experts);
}

std::vector<Pair> AllPairs(const model::Checkpoint& checkpoint) {
  std::vector<Pair> pairs;
  for (int layer = 0; layer < checkpoint.num_expert_layers(); ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    for (int e = 0; e < checkpoint.config().num_experts; ++e) {
      pairs.push_back({layer, e});
    }
  }
  return pairs;
}

class ElasticEngineTest
    : public ::testing::TestWithParam<
          std::pair<kernels::DType, model::WeightPlacement>> {
 protected:
  ElasticEngineTest() {
    auto opened = model::Checkpoint::Open(FixturePath("tiny_b_fp32"));
    EXPECT_THAT(opened, IsOk());
    checkpoint_ =
        GetParam().first != kernels::DType::kF32
            ? testing::QuantizeCheckpoint(*std::move(opened), GetParam().first,
                                          kernels::DType::kF32)
            : *std::move(opened);
    pairs_ = AllPairs(*checkpoint_);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int i = 0; i < 3 * hidden(); ++i) rows_.push_back(normal(random));
  }

  std::unique_ptr<ExpertEngine> Make(int64_t room, bool all = false) {
    ExpertEngine::Options options;
    options.checkpoint = checkpoint_.get();
    options.experts = Nothing(*checkpoint_);
    if (all) {
      for (const Pair& pair : pairs_) {
        options.experts.Insert(pair.layer, pair.expert);
      }
    }
    options.pool = &pool_;
    options.weights = GetParam().second;
    options.room = room;
    auto engine = ExpertEngine::Create(std::move(options));
    EXPECT_THAT(engine, IsOk());
    return *std::move(engine);
  }

  int64_t hidden() const { return checkpoint_->config().hidden_size; }

  absl::StatusOr<std::vector<float>> Compute(ExpertEngine* engine,
                                             const Pair& pair) {
    std::vector<float> outputs(3 * hidden(),
                               std::numeric_limits<float>::quiet_NaN());
    const std::vector<ExpertRun> runs = {{pair.expert, {0, 1, 2}}};
    const absl::Status status = engine->Compute(
        {.layer = pair.layer, .num_rows = 3, .rows = rows_, .runs = runs},
        absl::MakeSpan(outputs));
    if (!status.ok()) return status;
    return outputs;
  }
  bool SameAs(ExpertEngine* a, ExpertEngine* b, const Pair& pair) {
    const auto x = Compute(a, pair);
    const auto y = Compute(b, pair);
    return x.ok() && y.ok() &&
           std::memcmp(x->data(), y->data(), x->size() * sizeof(float)) == 0;
  }

  InlinePool pool_;
  InlinePool load_pool_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  std::vector<Pair> pairs_;
  std::vector<float> rows_;
};

TEST_P(ElasticEngineTest, WhatIsLoadedGivesTheSameBits) {
  const auto fixed = Make(0, /*all=*/true);
  const auto elastic = Make(static_cast<int64_t>(pairs_.size()));
  EXPECT_TRUE(elastic->holdings().empty());
  EXPECT_GT(elastic->expert_bytes(), 0);
  for (const absl::Status& status : elastic->Load(pairs_, &load_pool_)) {
    EXPECT_THAT(status, IsOk());
  }
  EXPECT_EQ(elastic->holdings(), fixed->holdings());
  EXPECT_EQ(elastic->resident_bytes(), fixed->resident_bytes());
  for (const Pair& pair : pairs_) {
    EXPECT_TRUE(SameAs(fixed.get(), elastic.get(), pair))
        << pair.layer << "," << pair.expert;
  }
}

TEST_P(ElasticEngineTest, WhatIsDroppedIsGoneAndMakesRoom) {
  const auto fixed = Make(0, /*all=*/true);
  const auto engine = Make(/*room=*/2);
  std::vector<absl::Status> statuses =
      engine->Load({{pairs_[0], pairs_[1], pairs_[2]}}, &load_pool_);
  EXPECT_THAT(statuses[0], IsOk());
  EXPECT_THAT(statuses[1], IsOk());
  EXPECT_THAT(statuses[2], StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(Compute(engine.get(), pairs_[2]),
              StatusIs(absl::StatusCode::kNotFound));
  const int64_t both = engine->resident_bytes();
  engine->Drop(pairs_[0]);
  engine->Drop(pairs_[0]);
  EXPECT_EQ(engine->resident_bytes(), both / 2);
  EXPECT_FALSE(engine->Holds(pairs_[0].layer, pairs_[0].expert));
  EXPECT_TRUE(engine->Holds(pairs_[1].layer, pairs_[1].expert));
  EXPECT_THAT(Compute(engine.get(), pairs_[0]),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(engine->Load({{pairs_[2]}}, &load_pool_)[0], IsOk());
  EXPECT_TRUE(SameAs(fixed.get(), engine.get(), pairs_[1]));
  EXPECT_TRUE(SameAs(fixed.get(), engine.get(), pairs_[2]));
  // What is held already costs nothing.
  EXPECT_THAT(engine->Load({{pairs_[2]}}, &load_pool_)[0], IsOk());
}

TEST_P(ElasticEngineTest, WhatDoesNotExistIsRefused) {
  const auto engine = Make(/*room=*/2);
  const auto statuses =
      engine->Load({{Pair{0, 10'000}, Pair{-1, 0}}}, &load_pool_);
  for (const absl::Status& status : statuses) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument));
  }
  engine->Drop({0, 10'000});
  EXPECT_THAT(engine->Load({{pairs_[0], pairs_[1]}}, &load_pool_)[1], IsOk());
}

// A batch in work keeps its experts; the memory is nobody else's meanwhile.
TEST_P(ElasticEngineTest, ComesAndGoesWhileItComputes) {
  const auto fixed = Make(0, /*all=*/true);
  const auto engine = Make(/*room=*/4);
  std::vector<std::vector<float>> expected;
  for (const Pair& pair : pairs_) {
    expected.push_back(*Compute(fixed.get(), pair));
  }
  std::atomic<bool> stop{false};
  std::thread loader = StartThread("loader", [&] {
    std::mt19937 random(7);
    while (!stop) {
      const Pair& pair = pairs_[random() % pairs_.size()];
      if (!engine->Load({{pair}}, &load_pool_)[0].ok()) {
        engine->Drop(pairs_[random() % pairs_.size()]);
      }
    }
  });
  std::mt19937 random(8);
  int computed = 0;
  for (int i = 0; computed < 2000 && i < 20'000'000; ++i) {
    const size_t pick = random() % pairs_.size();
    const auto outputs = Compute(engine.get(), pairs_[pick]);
    if (!outputs.ok()) {
      ASSERT_THAT(outputs, StatusIs(absl::StatusCode::kNotFound));
      continue;
    }
    ++computed;
    ASSERT_EQ(std::memcmp(outputs->data(), expected[pick].data(),
                          outputs->size() * sizeof(float)),
              0);
  }
  stop = true;
  loader.join();
  EXPECT_EQ(computed, 2000);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, ElasticEngineTest,
    ::testing::Values(
        std::pair(kernels::DType::kF32, model::WeightPlacement::kMap),
        std::pair(kernels::DType::kF32, model::WeightPlacement::kCopy),
        std::pair(kernels::DType::kQ8, model::WeightPlacement::kCopy),
        std::pair(kernels::DType::kBF16Dot, model::WeightPlacement::kCopy)));

TEST(ExpertSlots, AreTakenFromBelowAndGivenBack) {
  auto made = ExpertSlots::Create(100, 3);
  ASSERT_THAT(made, IsOk());
  ExpertSlots& slots = **made;
  EXPECT_EQ(slots.slot_bytes(), 128);
  for (int64_t i = 0; i < 3; ++i) {
    const auto slot = slots.Take();
    ASSERT_THAT(slot, IsOk());
    EXPECT_EQ(*slot, i);
    std::memset(slots.data(*slot), 1 + static_cast<int>(i), 100);
  }
  EXPECT_THAT(slots.Take(), StatusIs(absl::StatusCode::kResourceExhausted));
  slots.Give(2);
  slots.Give(0);
  EXPECT_EQ(*slots.Take(), 0);
  EXPECT_EQ(slots.data(1)[99], 2);
}

}  // namespace
}  // namespace switchyard::experts
