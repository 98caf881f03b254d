// What cannot be served fails for its own sequence alone; what cannot be right
// is refused before it serves.

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/layers/mtp_head.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/layers/test_model.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::NamedTensor;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Deadlines that tell the sequences of these tests apart.
absl::Time DeadlineOf(int sequence) {
  return absl::UnixEpoch() + absl::Hours(sequence);
}

class FailureTest : public ::testing::Test {
 protected:
  struct Outcome {
    std::vector<ChunkResult> results;
    std::vector<std::unique_ptr<SequenceState>> states;
  };

  // Three sequences of 5, 20 and 3 tokens; those whose bit is in `wanted` are
  // in the step.
  Outcome Run(TestModel* model, const std::vector<int>& wanted) {
    Outcome outcome;
    std::vector<SequenceChunk> chunks;
    for (int i : wanted) {
      outcome.states.push_back(model->NewState());
      chunks.push_back({.state = outcome.states.back().get(),
                        .tokens = tokens_[i],
                        .logits = LogitsOf::kEveryToken,
                        .deadline = DeadlineOf(i)});
    }
    outcome.results = model->runner().Step(chunks);
    return outcome;
  }

  const std::vector<std::vector<int32_t>> tokens_ = {
      SomeTokens(5, 512, 3), SomeTokens(20, 512, 4), SomeTokens(3, 512, 5)};
};

TEST_F(FailureTest, TearsOnlyItsSequence) {
  TestModel healthy(FixturePath("tiny_a_bf16"));
  const Outcome alone = Run(&healthy, {0, 2});
  // In turn the first, the middle and the last sequence, at several layers.
  for (int broken : {0, 1, 2}) {
    for (int layer : {0, 3, 7}) {
      TestModel model(FixturePath("tiny_a_bf16"), {.threads = 2});
      model.dispatcher().fail = [&](int at, absl::Time deadline) {
        return at == layer && deadline == DeadlineOf(broken)
                   ? absl::DeadlineExceededError("expert 7 is nowhere")
                   : absl::OkStatus();
      };
      const Outcome all = Run(&model, {0, 1, 2});
      for (int i : {0, 1, 2}) {
        if (i == broken) {
          EXPECT_THAT(all.results[i].status,
                      StatusIs(absl::StatusCode::kDeadlineExceeded,
                               HasSubstr("expert 7 is nowhere")));
          EXPECT_EQ(all.states[i]->health, StateHealth::kTorn);
          EXPECT_EQ(all.states[i]->num_tokens, 0);
          EXPECT_TRUE(all.results[i].logits.empty());
          continue;
        }
        EXPECT_THAT(all.results[i].status, IsOk());
        EXPECT_EQ(all.states[i]->health, StateHealth::kClean);
        EXPECT_EQ(all.states[i]->num_tokens,
                  static_cast<int64_t>(tokens_[i].size()));
        if (i == 1) continue;
        EXPECT_TRUE(
            SameBits(all.results[i].logits, alone.results[i / 2].logits));
        EXPECT_TRUE(SameBits(StateValues(all.states[i].get()),
                             StateValues(alone.states[i / 2].get())));
      }
      // Its rows went no further.
      const int64_t rows = 28 - static_cast<int64_t>(tokens_[broken].size());
      for (int i = 0; i < 8; ++i) {
        EXPECT_EQ(model.dispatcher().rows_of_layer[i], i <= layer ? 28 : rows);
      }
    }
  }
}

TEST_F(FailureTest, OfAllSequencesEndsTheStep) {
  TestModel model(FixturePath("tiny_a_bf16"));
  model.dispatcher().fail = [](int layer, absl::Time) {
    return layer == 2 ? absl::DeadlineExceededError("all gone")
                      : absl::OkStatus();
  };
  const Outcome all = Run(&model, {0, 1, 2});
  for (int i : {0, 1, 2}) {
    EXPECT_THAT(all.results[i].status,
                StatusIs(absl::StatusCode::kDeadlineExceeded));
    EXPECT_EQ(all.states[i]->health, StateHealth::kTorn);
  }
  EXPECT_EQ(model.dispatcher().rows_of_layer.size(), 3u);
  // The next step is not affected.
  model.dispatcher().fail = nullptr;
  TestModel healthy(FixturePath("tiny_a_bf16"));
  EXPECT_TRUE(SameBits(Run(&model, {1}).results[0].logits,
                       Run(&healthy, {1}).results[0].logits));
}

TEST_F(FailureTest, OfTheMtpHeadIsItsSequencesAlone) {
  TestModel model(FixturePath("tiny_a_bf16"));
  const int mtp_layer = model.config().num_hidden_layers;
  const std::vector<float> hidden(2 * model.config().hidden_size, 0.5f);
  const auto run = [&](int sequences) {
    std::vector<std::unique_ptr<SequenceState>> states;
    std::vector<MtpChunk> chunks;
    for (int i = 0; i < sequences; ++i) {
      states.push_back(model.NewState());
      chunks.push_back({.state = states.back().get(),
                        .hidden = hidden,
                        .next_tokens = absl::MakeConstSpan(tokens_[i]).first(2),
                        .deadline = DeadlineOf(i)});
    }
    return std::make_pair(model.mtp().Step(chunks), std::move(states));
  };
  const auto expected = run(3);
  model.dispatcher().fail = [&](int layer, absl::Time deadline) {
    return layer == mtp_layer && deadline == DeadlineOf(1)
               ? absl::UnavailableError("no")
               : absl::OkStatus();
  };
  const auto torn = run(3);
  for (int i : {0, 2}) {
    EXPECT_THAT(torn.first[i].status, IsOk());
    EXPECT_TRUE(SameBits(torn.first[i].logits, expected.first[i].logits));
    EXPECT_TRUE(SameBits(torn.first[i].hidden, expected.first[i].hidden));
    EXPECT_EQ(torn.second[i]->num_mtp_pairs, 2);
  }
  EXPECT_THAT(torn.first[1].status, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(torn.second[1]->health, StateHealth::kClean);
  EXPECT_EQ(torn.second[1]->num_mtp_pairs, 0);
}

// The runner of tiny_a_bf16 with one value of one tensor changed.
absl::Status CreateWith(const std::string& tensor, float value, bool mtp) {
  const std::string source = FixturePath("tiny_a_bf16");
  auto tensors = switchyard::testing::ReadTensors(source);
  EXPECT_THAT(tensors, IsOk());
  bool found = false;
  for (NamedTensor& candidate : *tensors) {
    if (candidate.name != tensor) continue;
    found = true;
    std::vector<float> values = switchyard::testing::TensorValues(candidate);
    values[values.size() / 2] = value;
    candidate = switchyard::testing::MakeTensor(candidate.name, candidate.shape,
                                                values, candidate.dtype);
  }
  EXPECT_TRUE(found) << tensor;
  const switchyard::testing::TempDir directory;
  auto config = ReadFile(source + "/config.json", /*max_bytes=*/1 << 20);
  EXPECT_THAT(config, IsOk());
  EXPECT_THAT(
      switchyard::testing::WriteCheckpoint(directory.path(), *config, *tensors),
      IsOk());
  auto checkpoint = model::Checkpoint::Open(directory.path());
  EXPECT_THAT(checkpoint, IsOk());
  InlinePool pool;
  DirectDispatcher dispatcher(checkpoint->get(), &kernels::Kernels());
  ModelRunner::Options options{.checkpoint = checkpoint->get(),
                               .dispatcher = &dispatcher,
                               .pool = &pool};
  auto runner = ModelRunner::Create(options);
  if (!mtp || !runner.ok()) return runner.status();
  return MtpHead::Create(options, runner->get()).status();
}

TEST(LoadTest, RefusesWeightsThatAreNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const char* tensor :
       {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
        "model.layers.0.linear_attn.in_proj_qkvz.weight",
        "model.layers.1.linear_attn.A_log",
        "model.layers.3.self_attn.k_norm.weight",
        "model.layers.7.mlp.shared_expert.up_proj.weight"}) {
    EXPECT_THAT(CreateWith(tensor, nan, /*mtp=*/false),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(tensor)));
    EXPECT_THAT(CreateWith(tensor, -inf, /*mtp=*/false),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr(tensor)));
    EXPECT_THAT(CreateWith(tensor, 0.25f, /*mtp=*/false), IsOk());
  }
  EXPECT_THAT(
      CreateWith("mtp.fc.weight", nan, /*mtp=*/true),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("mtp.fc.weight")));
  // What a layer does not read is not its business.
  EXPECT_THAT(CreateWith("mtp.fc.weight", nan, /*mtp=*/false), IsOk());
}

TEST(LoadTest, ReportsProgressOfEveryByte) {
  auto checkpoint = model::Checkpoint::Open(FixturePath("tiny_b_fp32"));
  ASSERT_THAT(checkpoint, IsOk());
  InlinePool pool;
  DirectDispatcher dispatcher(checkpoint->get(), &kernels::Kernels());
  std::vector<std::pair<int64_t, int64_t>> calls;
  ASSERT_THAT(ModelRunner::Create({.checkpoint = checkpoint->get(),
                                   .dispatcher = &dispatcher,
                                   .pool = &pool,
                                   .progress =
                                       [&calls](int64_t done, int64_t total) {
                                         calls.emplace_back(done, total);
                                       }}),
              IsOk());
  ASSERT_GE(calls.size(), 2u);
  EXPECT_EQ(calls.front().first, 0);
  EXPECT_EQ(calls.back().first, calls.back().second);
  for (size_t i = 1; i < calls.size(); ++i) {
    EXPECT_GT(calls[i].first, calls[i - 1].first);
    EXPECT_EQ(calls[i].second, calls[0].second);
  }
}

TEST(LoadTest, NoMtpHeadWithoutItsTensors) {
  const switchyard::testing::TempDir directory;
  ASSERT_THAT(switchyard::testing::WriteRandomCheckpoint({.with_mtp = false},
                                                         directory.path()),
              IsOk());
  auto checkpoint = model::Checkpoint::Open(directory.path());
  ASSERT_THAT(checkpoint, IsOk());
  InlinePool pool;
  DirectDispatcher dispatcher(checkpoint->get(), &kernels::Kernels());
  const ModelRunner::Options options{.checkpoint = checkpoint->get(),
                                     .dispatcher = &dispatcher,
                                     .pool = &pool};
  auto runner = ModelRunner::Create(options);
  ASSERT_THAT(runner, IsOk());
  EXPECT_THAT(MtpHead::Create(options, runner->get()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("mtp.*")));
}

}  // namespace
}  // namespace switchyard::attention_worker
