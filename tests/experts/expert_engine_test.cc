#include "experts/expert_engine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/compute_pool.h"
#include "experts/quantized_buffer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/kernel_table.h"
#include "model/checkpoint.h"
#include "model/expert_set.h"
#include "model/weight_values.h"
#include "tests/experts/engine_testing.h"
#include "tests/experts/plain_expert.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/quantized_checkpoint.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::experts {
namespace {

using testing::FixturePath;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

// A fixture's model, its experts as they are (kF32), quantised, or of kBF16Dot.
using Model = std::pair<const char*, kernels::DType>;

class ExpertEngineFixture : public ::testing::TestWithParam<Model> {
 protected:
  static kernels::DType dtype() { return GetParam().second; }
  static bool IsQuantized() { return kernels::IsQuantized(dtype()); }
  static bool IsEncoded() { return dtype() != kernels::DType::kF32; }
  // `batch` has the rows of `work` as a sender has encoded them; engines whose
  // experts take others refuse it.
  static void ExpectBitsOfFloats(ExpertEngine* engine, const Work& work,
                                 const ExpertBatch& batch, bool taken) {
    const std::vector<float> expected = Compute(engine, work);
    std::vector<float> outputs(expected.size(),
                               std::numeric_limits<float>::quiet_NaN());
    const absl::Status status = engine->Compute(batch, absl::MakeSpan(outputs));
    if (taken) {
      ASSERT_THAT(status, IsOk());
      EXPECT_TRUE(SameBits(outputs, expected));
    } else {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                   HasSubstr("send floats")));
    }
  }
  static void ExpectRefused(ExpertEngine* engine, const ExpertBatch& batch,
                            int64_t hidden) {
    std::vector<float> outputs(batch.num_outputs() * hidden);
    EXPECT_THAT(engine->Compute(batch, absl::MakeSpan(outputs)),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  static std::unique_ptr<model::Checkpoint> OpenModel() {
    auto checkpoint = Open(FixturePath(GetParam().first));
    if (!IsEncoded()) return checkpoint;
    return testing::QuantizeCheckpoint(std::move(checkpoint), GetParam().second,
                                       kernels::DType::kF32);
  }
};

std::string ModelName(const ::testing::TestParamInfo<Model>& info) {
  const auto& [fixture, dtype] = info.param;
  if (dtype == kernels::DType::kF32) return fixture;
  return absl::StrCat(fixture, "_as_", std::string(model::DTypeName(dtype)));
}

INSTANTIATE_TEST_SUITE_P(
    Models, ExpertEngineFixture,
    ::testing::Values(Model("tiny_a_bf16", kernels::DType::kF32),
                      Model("tiny_b_fp32", kernels::DType::kF32),
                      Model("tiny_a_bf16", kernels::DType::kQ8),
                      Model("tiny_b_fp32", kernels::DType::kQ8),
                      Model("tiny_b_fp32", kernels::DType::kQ4),
                      Model("tiny_a_bf16", kernels::DType::kBF16Dot),
                      Model("tiny_b_fp32", kernels::DType::kBF16Dot)),
    ModelName);

TEST_P(ExpertEngineFixture, EqualsThePlainDefinitionInEveryLayer) {
  const auto checkpoint = OpenModel();
  InlinePool pool;
  const auto engine = MakeEngine(*checkpoint, &pool);
  const int64_t H = checkpoint->config().hidden_size;
  for (int layer = 0; layer < checkpoint->num_expert_layers(); ++layer) {
    if (!checkpoint->LayerHasExperts(layer)) continue;
    const Work work = RandomWork(checkpoint->config(), layer, 5, 0.4, layer);
    const std::vector<float> outputs = Compute(engine.get(), work);
    int64_t output_row = 0;
    for (const ExpertRun& run : work.runs) {
      const auto weights = checkpoint->FindExpert(layer, run.expert);
      ASSERT_THAT(weights, IsOk());
      for (int32_t row : run.rows) {
        const std::vector<double> expected =
            PlainExpert(*weights, work.rows.data() + row * H);
        // Quantised activations are off by up to 1/254 of their group's
        // largest, in both products; those in bf16 by 1/512 of themselves.
        double largest = 0;
        for (const double y : expected)
          largest = std::max(largest, std::fabs(y));
        for (int64_t h = 0; h < H; ++h) {
          ASSERT_NEAR(outputs[output_row * H + h], expected[h],
                      IsEncoded() ? 0.05 * largest
                                  : 1e-5 * (1 + std::fabs(expected[h])))
              << "layer " << layer << " expert " << run.expert << " row " << row
              << " column " << h;
        }
        ++output_row;
      }
    }
  }
}

TEST_P(ExpertEngineFixture, EncodedExpertsHaveTheDefinitionsBits) {
  if (!IsEncoded()) return;
  const auto checkpoint = OpenModel();
  const auto pool = NewThreadPool(2, "experts");
  const auto engine = MakeEngine(*checkpoint, pool.get());
  EXPECT_EQ(engine->weight_dtype(), GetParam().second);
  const int64_t H = checkpoint->config().hidden_size;
  const Work work = RandomWork(checkpoint->config(), 0, 30, 0.5, 5);
  const std::vector<float> outputs = Compute(engine.get(), work);
  size_t output_row = 0;
  for (const ExpertRun& run : work.runs) {
    const auto weights = checkpoint->FindExpert(0, run.expert);
    ASSERT_THAT(weights, IsOk());
    for (int32_t row : run.rows) {
      ASSERT_TRUE(
          SameBits(ExpertByDefinition(*weights, work.rows.data() + row * H),
                   {outputs.begin() + output_row * H,
                    outputs.begin() + (output_row + 1) * H}))
          << "expert " << run.expert << " row " << row;
      ++output_row;
    }
  }
}

// Rows that a sender has quantised, without the floats.
TEST_P(ExpertEngineFixture, QuantizedRowsGiveTheBitsOfTheFloats) {
  const auto checkpoint = OpenModel();
  InlinePool pool;
  const auto engine = MakeEngine(*checkpoint, &pool);
  const int64_t H = checkpoint->config().hidden_size;
  const Work work = RandomWork(checkpoint->config(), 0, 40, 0.5, 9);
  QuantizedBuffer rows(H);
  rows.Reserve(work.num_rows);
  for (int64_t row = 0; row < work.num_rows; ++row) {
    rows.Quantize(kernels::Kernels(), work.rows.data() + row * H, row, 0, H);
  }
  ExpertBatch batch = work.batch();
  batch.rows = {};
  batch.quantized = rows.Rows(0);
  ExpectBitsOfFloats(engine.get(), work, batch, /*taken=*/IsQuantized());
  batch.quantized.cols = H - 1;
  ExpectRefused(engine.get(), batch, H);
}

// The same for rows in bf16.
TEST_P(ExpertEngineFixture, RoundedRowsGiveTheBitsOfTheFloats) {
  const auto checkpoint = OpenModel();
  InlinePool pool;
  const auto engine = MakeEngine(*checkpoint, &pool);
  const int64_t H = checkpoint->config().hidden_size;
  const Work work = RandomWork(checkpoint->config(), 0, 40, 0.5, 9);
  std::vector<uint16_t> rounded(work.rows.size());
  kernels::Kernels().round_to_bf16(
      work.rows.data(), static_cast<int64_t>(work.rows.size()), rounded.data());
  ExpertBatch batch = work.batch();
  batch.rows = {};
  batch.rounded = rounded.data();
  ExpectBitsOfFloats(engine.get(), work, batch,
                     /*taken=*/dtype() == kernels::DType::kBF16Dot);
  batch.num_rows = -1;
  ExpectRefused(engine.get(), batch, H);
}

TEST_P(ExpertEngineFixture, ARowsBitsDoNotDependOnItsCompany) {
  const auto checkpoint = OpenModel();
  const int64_t H = checkpoint->config().hidden_size;
  InlinePool pool;
  const auto engine = MakeEngine(*checkpoint, &pool);
  const Work all = RandomWork(checkpoint->config(), 0, 40, 0.5, 1);
  const std::vector<float> together = Compute(engine.get(), all);

  int64_t output_row = 0;
  for (const ExpertRun& run : all.runs) {
    for (int32_t row : run.rows) {
      Work alone{0, 1, {}, {{run.expert, {0}}}};
      alone.rows.assign(all.rows.begin() + row * H,
                        all.rows.begin() + (row + 1) * H);
      const std::vector<float> expected(
          together.begin() + output_row * H,
          together.begin() + (output_row + 1) * H);
      ASSERT_TRUE(SameBits(Compute(engine.get(), alone), expected))
          << "expert " << run.expert << " row " << row;
      ++output_row;
    }
  }
}

TEST_P(ExpertEngineFixture, PoolSizeChangesNoBit) {
  const auto checkpoint = OpenModel();
  InlinePool inline_pool;
  const auto reference_engine = MakeEngine(*checkpoint, &inline_pool);
  for (const int64_t rows : {1, 3, 70, 300}) {
    const Work work = RandomWork(checkpoint->config(), 0, rows, 0.3, rows);
    const std::vector<float> expected = Compute(reference_engine.get(), work);
    for (int threads = 1; threads <= 8; threads += threads < 4 ? 1 : 4) {
      const auto pool = NewThreadPool(threads, "experts");
      const auto engine = MakeEngine(*checkpoint, pool.get());
      EXPECT_TRUE(SameBits(Compute(engine.get(), work), expected))
          << rows << " rows, " << threads << " threads";
    }
  }
}

// Copied to memory of its own, or where they are mapped.
TEST_P(ExpertEngineFixture, PlacementOfWeightsChangesNoBit) {
  const auto checkpoint = OpenModel();
  const auto pool = NewThreadPool(2, "experts");
  const Work work = RandomWork(checkpoint->config(), 0, 20, 0.5, 13);
  std::vector<std::vector<float>> outputs;
  for (const auto placement :
       {model::WeightPlacement::kMap, model::WeightPlacement::kCopy}) {
    ExpertEngine::Options options;
    options.checkpoint = checkpoint.get();
    options.experts = AllExperts(*checkpoint);
    options.pool = pool.get();
    options.weights = placement;
    const auto engine = ExpertEngine::Create(std::move(options));
    ASSERT_THAT(engine, IsOk());
    outputs.push_back(Compute(engine->get(), work));
  }
  EXPECT_TRUE(SameBits(outputs[0], outputs[1]));
}

TEST_P(ExpertEngineFixture, KernelTableChangesNoBit) {
  const auto checkpoint = OpenModel();
  InlinePool pool;
  const Work work = RandomWork(checkpoint->config(), 0, 90, 0.5, 7);
  std::vector<float> expected;
  for (const kernels::KernelTable* table : kernels::AvailableKernels()) {
    const auto engine = MakeEngine(*checkpoint, &pool, table);
    const std::vector<float> outputs = Compute(engine.get(), work);
    if (expected.empty()) expected = outputs;
    EXPECT_TRUE(SameBits(outputs, expected)) << table->name;
  }
}

// 700 rows through each of several experts: more than a unit, more than a wave,
// rows consecutive and not.
TEST_P(ExpertEngineFixture, LargeBatchesEqualSmallOnes) {
  const auto checkpoint = OpenModel();
  const int64_t H = checkpoint->config().hidden_size;
  const auto pool = NewThreadPool(2, "experts");
  const auto engine = MakeEngine(*checkpoint, pool.get());
  Work large = RandomWork(checkpoint->config(), 0, 700, 0, 3);
  ExpertRun every{1, {}};
  ExpertRun even{4, {}};
  ExpertRun tail{9, {}};
  for (int32_t row = 0; row < 700; ++row) {
    every.rows.push_back(row);
    if (row % 2 == 0) even.rows.push_back(row);
    if (row >= 650) tail.rows.push_back(row);
  }
  large.runs = {every, even, tail};
  const std::vector<float> outputs = Compute(engine.get(), large);

  int64_t output_row = 0;
  for (const ExpertRun& run : large.runs) {
    for (size_t i = 0; i < run.rows.size(); i += 10) {
      const size_t count = std::min<size_t>(10, run.rows.size() - i);
      Work small{0, static_cast<int64_t>(count), {}, {{run.expert, {}}}};
      for (size_t j = 0; j < count; ++j) {
        const float* row = large.rows.data() + run.rows[i + j] * H;
        small.rows.insert(small.rows.end(), row, row + H);
        small.runs[0].rows.push_back(static_cast<int32_t>(j));
      }
      const std::vector<float> expected(
          outputs.begin() + output_row * H,
          outputs.begin() + (output_row + static_cast<int64_t>(count)) * H);
      ASSERT_TRUE(SameBits(Compute(engine.get(), small), expected))
          << "expert " << run.expert << " from row " << run.rows[i];
      output_row += static_cast<int64_t>(count);
    }
  }
}

// Any split of the experts over holders gives what one holder gives.
TEST_P(ExpertEngineFixture, SlicesTogetherEqualTheWhole) {
  const auto checkpoint = OpenModel();
  const model::ModelConfig& config = checkpoint->config();
  const int layer = checkpoint->num_expert_layers() - 1;  // the MTP layer
  InlinePool pool;
  const auto whole = MakeEngine(*checkpoint, &pool);
  std::mt19937 random(11);
  for (int round = 0; round < 5; ++round) {
    const Work work = RandomWork(config, layer, 9, 0.5, round);
    const std::vector<float> expected = Compute(whole.get(), work);
    const int holders = 2 + static_cast<int>(random() % 3);
    std::vector<int> holder_of(config.num_experts);
    for (int& holder : holder_of) holder = static_cast<int>(random() % holders);

    std::vector<float> outputs(expected.size());
    for (int holder = 0; holder < holders; ++holder) {
      model::ExpertSet mine(checkpoint->num_expert_layers(),
                            config.num_experts);
      for (int e = 0; e < config.num_experts; ++e) {
        if (holder_of[e] == holder) mine.Insert(layer, e);
      }
      ExpertEngine::Options options;
      options.checkpoint = checkpoint.get();
      options.experts = mine;
      options.pool = &pool;
      const auto engine = ExpertEngine::Create(options);
      ASSERT_THAT(engine, IsOk());
      EXPECT_EQ((*engine)->holdings(), mine);
      Work share{layer, work.num_rows, work.rows, {}};
      std::vector<int64_t> starts;  // of each run's outputs, in the whole
      int64_t start = 0;
      for (const ExpertRun& run : work.runs) {
        if (holder_of[run.expert] == holder) {
          share.runs.push_back(run);
          starts.push_back(start);
        }
        start += static_cast<int64_t>(run.rows.size()) * config.hidden_size;
      }
      const std::vector<float> part = Compute(engine->get(), share);
      auto from = part.begin();
      for (size_t i = 0; i < share.runs.size(); ++i) {
        const int64_t n = static_cast<int64_t>(share.runs[i].rows.size()) *
                          config.hidden_size;
        std::copy(from, from + n, outputs.begin() + starts[i]);
        from += n;
      }
    }
    EXPECT_TRUE(SameBits(outputs, expected)) << "round " << round;
  }
}

TEST(ExpertEngine, ReportsProgressAndResidentBytes) {
  const auto checkpoint = Open(FixturePath("tiny_a_bf16"));
  InlinePool pool;
  model::ExpertSet set(checkpoint->num_expert_layers(), 16);
  for (int e = 0; e < 16; e += 3) set.Insert(8, e);
  std::vector<std::pair<int64_t, int64_t>> calls;
  ExpertEngine::Options options;
  options.checkpoint = checkpoint.get();
  options.experts = set;
  options.pool = &pool;
  options.progress = [&](int64_t done, int64_t total) {
    calls.emplace_back(done, total);
  };
  const auto engine = ExpertEngine::Create(options);
  ASSERT_THAT(engine, IsOk());
  const int64_t bytes =
      6 * 3 * 16 * 64 * 2;  // experts * matrices * I * H * bf16
  EXPECT_EQ((*engine)->resident_bytes(), bytes);
  ASSERT_FALSE(calls.empty());
  EXPECT_EQ(calls.back(), std::pair(bytes, bytes));
}

TEST(ExpertEngine, HoldsNothing) {
  const auto checkpoint = Open(FixturePath("tiny_a_bf16"));
  InlinePool pool;
  ExpertEngine::Options options;
  options.checkpoint = checkpoint.get();
  options.experts = model::ExpertSet(checkpoint->num_expert_layers(), 16);
  options.pool = &pool;
  const auto engine = ExpertEngine::Create(options);
  ASSERT_THAT(engine, IsOk());
  EXPECT_EQ((*engine)->resident_bytes(), 0);
}

TEST(ExpertEngine, FusedExpertsComputeTheSameBits) {
  TempDir separate_dir;
  TempDir fused_dir;
  testing::RandomCheckpointOptions random;
  ASSERT_THAT(WriteRandomCheckpoint(random, separate_dir.path()), IsOk());
  random.fused_experts = true;
  ASSERT_THAT(WriteRandomCheckpoint(random, fused_dir.path()), IsOk());
  const auto separate = Open(separate_dir.path());
  const auto fused = Open(fused_dir.path());
  InlinePool pool;
  const auto separate_engine = MakeEngine(*separate, &pool);
  const auto fused_engine = MakeEngine(*fused, &pool);
  for (int layer = 0; layer < separate->num_expert_layers(); ++layer) {
    const Work work = RandomWork(separate->config(), layer, 6, 0.5, layer);
    EXPECT_TRUE(SameBits(Compute(separate_engine.get(), work),
                         Compute(fused_engine.get(), work)))
        << "layer " << layer;
  }
}

}  // namespace
}  // namespace switchyard::experts
