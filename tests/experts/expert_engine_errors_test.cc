// What an expert engine refuses, and that it computes nothing then.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/compute_pool.h"
#include "experts/expert_engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "model/expert_set.h"
#include "tests/experts/engine_testing.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::experts {
namespace {

using ::testing::AllOf;
using testing::FixturePath;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::NamedTensor;
using testing::StatusIs;
using testing::TempDir;

class ExpertEngineErrors : public ::testing::Test {
 protected:
  ExpertEngineErrors() : checkpoint_(Open(FixturePath("tiny_b_fp32"))) {
    model::ExpertSet some(checkpoint_->num_expert_layers(), 32);
    for (int e : {0, 1, 2, 10}) some.Insert(0, e);
    ExpertEngine::Options options;
    options.checkpoint = checkpoint_.get();
    options.experts = some;
    options.pool = &pool_;
    auto engine = ExpertEngine::Create(std::move(options));
    EXPECT_THAT(engine, IsOk());
    engine_ = *std::move(engine);
  }

  // Two rows through `runs`; room for the outputs; checks that a failure leaves
  // the outputs alone.
  absl::Status Run(std::vector<ExpertRun> runs) {
    Work work{0, 2, std::vector<float>(2 * H()), std::move(runs)};
    std::vector<float> outputs(work.batch().num_outputs() * H(), 7.0f);
    const absl::Status status =
        engine_->Compute(work.batch(), absl::MakeSpan(outputs));
    if (!status.ok()) {
      EXPECT_THAT(outputs, ::testing::Each(7.0f)) << "something was computed";
    }
    return status;
  }
  int64_t H() const { return checkpoint_->config().hidden_size; }

  InlinePool pool_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  std::unique_ptr<ExpertEngine> engine_;
};

TEST_F(ExpertEngineErrors, NotFoundNamesTheMissingPairs) {
  EXPECT_THAT(Run({{0, {0}}, {10, {0, 1}}}), IsOk());
  EXPECT_THAT(
      Run({{0, {0}}, {4, {0}}, {5, {1}}, {6, {0}}, {10, {1}}, {31, {0}}}),
      StatusIs(absl::StatusCode::kNotFound,
               HasSubstr("layer 0, expert 4-6, 31")));
}

TEST_F(ExpertEngineErrors, RunsMustBeAscendingAndInRange) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Run({{1, {0}}, {0, {0}}}), StatusIs(kInvalid));
  EXPECT_THAT(Run({{1, {0}}, {1, {1}}}), StatusIs(kInvalid));
  EXPECT_THAT(Run({{-1, {0}}}), StatusIs(kInvalid));
  EXPECT_THAT(Run({{32, {0}}}), StatusIs(kInvalid));
  EXPECT_THAT(Run({{0, {0, 2}}}), StatusIs(kInvalid, HasSubstr("row 2")));
  EXPECT_THAT(Run({{0, {-1}}}), StatusIs(kInvalid));
  EXPECT_THAT(Run({{0, {1, 0}}}), StatusIs(kInvalid));
  EXPECT_THAT(Run({{0, {1, 1}}}), StatusIs(kInvalid));
}

TEST_F(ExpertEngineErrors, SizesMustFit) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const std::vector<ExpertRun> runs = {{0, {0, 1}}};
  const std::vector<float> rows(2 * H());
  std::vector<float> outputs(2 * H());
  const auto compute = [&](int layer, int64_t num_rows, size_t row_floats,
                           size_t output_floats) {
    return engine_->Compute(
        {.layer = layer,
         .num_rows = num_rows,
         .rows = absl::MakeConstSpan(rows).first(row_floats),
         .runs = runs},
        absl::MakeSpan(outputs).first(output_floats));
  };
  EXPECT_THAT(compute(0, 2, rows.size(), outputs.size()), IsOk());
  EXPECT_THAT(compute(0, 3, rows.size(), outputs.size()), StatusIs(kInvalid));
  EXPECT_THAT(compute(0, 2, rows.size() - 1, outputs.size()),
              StatusIs(kInvalid));
  EXPECT_THAT(compute(0, 2, rows.size(), outputs.size() - 1),
              StatusIs(kInvalid));
  EXPECT_THAT(compute(0, 2, rows.size(), outputs.size() - H()),
              StatusIs(kInvalid));
  EXPECT_THAT(compute(-1, 2, rows.size(), outputs.size()), StatusIs(kInvalid));
  EXPECT_THAT(compute(7, 2, rows.size(), outputs.size()), StatusIs(kInvalid));
  // num_rows * H would wrap around to rows.size().
  EXPECT_THAT(compute(0, (int64_t{1} << 61) + 2, rows.size(), outputs.size()),
              StatusIs(kInvalid));
}

TEST_F(ExpertEngineErrors, EmptyWorkIsDone) {
  EXPECT_THAT(Run({}), IsOk());
  EXPECT_THAT(Run({{0, {}}}), IsOk());
  EXPECT_THAT(engine_->Compute({}, {}), IsOk());
}

TEST_F(ExpertEngineErrors, CreateRefusesWhatTheModelDoesNotHave) {
  ExpertEngine::Options options;
  options.checkpoint = checkpoint_.get();
  options.pool = &pool_;
  options.experts = model::ExpertSet(6, 32);  // without the MTP layer
  EXPECT_THAT(ExpertEngine::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("7 layers of 32")));
  options.experts = model::ExpertSet(7, 32);
  options.experts.Insert(2, 5);  // mlp_only_layers
  EXPECT_THAT(
      ExpertEngine::Create(options),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layer 2")));
}

// In every place of a tensor and for every dtype; other experts still load.
TEST(ExpertEngine, RefusesNonFiniteWeightsByName) {
  const std::string name = "model.layers.1.mlp.experts.2.up_proj.weight";
  for (const auto dtype :
       {kernels::DType::kBF16, kernels::DType::kF16, kernels::DType::kF32}) {
    for (const float bad : {std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
      TempDir dir;
      testing::RandomCheckpointOptions random;
      random.dtype = dtype;
      ASSERT_THAT(WriteRandomCheckpoint(random, dir.path()), IsOk());
      auto tensors = testing::ReadTensors(dir.path());
      ASSERT_THAT(tensors, IsOk());
      for (NamedTensor& tensor : *tensors) {
        if (tensor.name != name) continue;
        std::vector<float> values = TensorValues(tensor);
        values.back() = bad;
        tensor = testing::MakeTensor(tensor.name, tensor.shape, values, dtype);
      }
      ASSERT_THAT(
          testing::WriteCheckpoint(dir.path(), random.config_json, *tensors),
          IsOk());
      const auto checkpoint = Open(dir.path());
      InlinePool pool;
      ExpertEngine::Options options;
      options.checkpoint = checkpoint.get();
      options.experts = AllExperts(*checkpoint);
      options.pool = &pool;
      EXPECT_THAT(ExpertEngine::Create(options),
                  StatusIs(absl::StatusCode::kDataLoss,
                           AllOf(HasSubstr(name), HasSubstr("1 weights of"),
                                 HasSubstr(dir.path()))));
      options.experts.Erase(1, 2);
      EXPECT_THAT(ExpertEngine::Create(options), IsOk());
    }
  }
}

}  // namespace
}  // namespace switchyard::experts
