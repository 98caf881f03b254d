#include "switchyard/bench/serving/counting_runner.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "attention_worker/state/sequence_state.h"
#include "attention_worker/state/state_memory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_model_runner.h"
#include "tests/testing/matchers.h"

namespace switchyard::bench {
namespace {

using ::switchyard::testing::FakeModelRunner;
using ::switchyard::testing::IsOk;

TEST(CountingRunnerTest, CountsRowsAndDraftsApart) {
  FakeModelRunner model(10, 2);
  CountingRunner runner(&model);
  const auto memory = attention_worker::StateMemory::Create(
      runner.state_shape(), 4 * runner.state_shape().Costs().BytesFor(64));
  ASSERT_THAT(memory, IsOk());
  const auto state =
      attention_worker::SequenceState::TryCreate(memory->get(), 64);
  ASSERT_NE(state, nullptr);
  ASSERT_TRUE(state->TryGrow(20));
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5};
  attention_worker::SequenceChunk chunk;
  chunk.state = state.get();
  chunk.tokens = tokens;
  ASSERT_THAT(runner.Step({chunk})[0].status, IsOk());
  const RunnerCounts before = runner.counts();
  EXPECT_EQ(before.steps, 1);
  EXPECT_EQ(before.rows, 5);
  chunk.tokens = absl::MakeConstSpan(tokens).first(3);
  chunk.provisional_tokens = 2;
  chunk.logits = attention_worker::LogitsOf::kEveryToken;
  ASSERT_THAT(runner.Step({chunk})[0].status, IsOk());
  const RunnerCounts more = runner.counts() - before;
  EXPECT_EQ(more.steps, 1);
  EXPECT_EQ(more.chunks, 1);
  EXPECT_EQ(more.rows, 1);
  EXPECT_EQ(more.draft_rows, 2);
}

}  // namespace
}  // namespace switchyard::bench
