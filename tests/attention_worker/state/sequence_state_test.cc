#include "attention_worker/state/sequence_state.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "attention_worker/state/kv_dtype.h"
#include "attention_worker/state/reserved_floats.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/config.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using kernels::KvDType;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

// Qwen3-Next-80B-A3B's geometry.
model::ModelConfig LargeConfig() {
  model::ModelConfig config;
  config.num_hidden_layers = 48;
  for (int i = 0; i < 48; ++i) {
    config.layer_types.push_back((i + 1) % 4 == 0
                                     ? model::LayerType::kFullAttention
                                     : model::LayerType::kLinearAttention);
  }
  config.num_key_value_heads = 2;
  config.head_dim = 256;
  config.linear_num_key_heads = 16;
  config.linear_num_value_heads = 32;
  config.linear_key_head_dim = 128;
  config.linear_value_head_dim = 128;
  config.linear_conv_kernel_dim = 4;
  config.hidden_size = 2048;
  return config;
}

model::ModelConfig SmallConfig() {
  model::ModelConfig config = LargeConfig();
  config.num_hidden_layers = 4;
  config.layer_types.resize(4);
  config.head_dim = 8;
  config.linear_num_key_heads = 2;
  config.linear_num_value_heads = 4;
  config.linear_key_head_dim = 8;
  config.linear_value_head_dim = 5;
  return config;
}

std::unique_ptr<StateMemory> Memory(const StateShape& shape, int64_t bytes) {
  auto memory = StateMemory::Create(shape, bytes);
  EXPECT_THAT(memory, IsOk());
  return *std::move(memory);
}

TEST(StateShapeTest, CostsOfThe80BModel) {
  const StateShape shape(LargeConfig());
  EXPECT_EQ(shape.num_full_layers, 12);
  EXPECT_EQ(shape.num_linear_layers, 36);
  EXPECT_EQ(shape.kv.num_kv_heads, 2);
  EXPECT_EQ(shape.kv.head_dim, 256);
  EXPECT_EQ(shape.recurrent_floats, 32 * 128 * 128);
  EXPECT_EQ(shape.conv_floats, 3 * 8192);
  // 72 MiB of S, 3.4 MiB of convolution tails, a hidden state; 48 KiB of fp32 K
  // and V a token.
  EXPECT_EQ(shape.FixedBytes(),
            (int64_t{72} << 20) + 36 * 3 * 8192 * 4 + 2048 * 4);
  EXPECT_EQ(shape.PageBytes(), kPageTokens * (48 << 10));
  EXPECT_EQ(shape.Costs().BytesFor(0), shape.FixedBytes());
  EXPECT_EQ(shape.Costs().BytesFor(65),
            shape.FixedBytes() + 2 * shape.PageBytes());
  EXPECT_EQ(shape.Costs().TokensFor(shape.FixedBytes() - 1), -1);
  EXPECT_EQ(shape.Costs().TokensFor(shape.FixedBytes()), 0);
  EXPECT_EQ(
      shape.Costs().TokensFor(shape.FixedBytes() + 2 * shape.PageBytes() + 1),
      128);
}

TEST(StateShapeTest, PagesAreAsLargeAsTheirNumbers) {
  const auto token_bytes = [](KvDType dtype) {
    const StateShape shape(LargeConfig(), /*max_draft_tokens=*/0, dtype);
    EXPECT_EQ(shape.PageBytes(), shape.BytesPerToken() * kPageTokens);
    EXPECT_EQ(shape.PageBytes(), shape.PageFloats() * 4);
    EXPECT_EQ(shape.FixedBytes(), StateShape(LargeConfig()).FixedBytes());
    return shape.BytesPerToken();
  };
  EXPECT_EQ(token_bytes(KvDType::kF32), 48 << 10);
  EXPECT_EQ(token_bytes(KvDType::kBF16), 24 << 10);
  // 12 layers, K and V, 2 heads, 256 bytes and 8 scales.
  EXPECT_EQ(token_bytes(KvDType::kI8), 12 * 2 * 2 * (256 + 8 * 4));
}

TEST(KvDTypeTest, Names) {
  for (const auto& [name, choice] : {std::pair("auto", KvCacheDType::kAuto),
                                     {"float32", KvCacheDType::kFloat32},
                                     {"bfloat16", KvCacheDType::kBFloat16},
                                     {"int8", KvCacheDType::kInt8}}) {
    const auto parsed = ParseKvCacheDType(name);
    ASSERT_THAT(parsed, IsOk());
    EXPECT_EQ(*parsed, choice);
  }
  EXPECT_THAT(ParseKvCacheDType("fp8_e5m2"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("--kv-cache-dtype is 'fp8_e5m2'; it must be "
                                 "auto, float32, bfloat16 or int8")));
  EXPECT_STREQ(KvDTypeName(KvDType::kI8), "int8");
}

TEST(SequenceStateTest, BeginsCleanAndZero) {
  const StateShape shape(SmallConfig());
  const auto memory = Memory(shape, 4 * shape.FixedBytes());
  for (int round = 0; round < 2; ++round) {
    const auto state = SequenceState::TryCreate(memory.get(), 10);
    ASSERT_NE(state, nullptr);
    EXPECT_EQ(state->health, StateHealth::kClean);
    EXPECT_EQ(state->num_tokens, 0);
    EXPECT_EQ(state->max_tokens(), 10);
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(std::all_of(state->recurrent(i),
                              state->recurrent(i) + shape.recurrent_floats,
                              [](float x) { return x == 0; }));
      EXPECT_TRUE(std::all_of(state->conv_tail(i),
                              state->conv_tail(i) + shape.conv_floats,
                              [](float x) { return x == 0; }));
      // The next one takes the same block.
      std::fill_n(state->recurrent(i), shape.recurrent_floats, 1.0f);
    }
  }
}

TEST(SequenceStateTest, EveryArrayIsItsOwn) {
  const StateShape shape(SmallConfig());
  const auto memory = Memory(shape, 1 << 20);
  const auto state = SequenceState::TryCreate(memory.get(), 100);
  ASSERT_TRUE(state->TryGrow(100));
  ASSERT_EQ(state->room(), 2 * kPageTokens);
  // Each array filled with a number of its own: the numbers must survive.
  std::vector<std::pair<float*, int64_t>> arrays;
  const KvLayer kv = {state->pages(), shape.kv, 0};
  for (int64_t t = 0; t < state->room(); ++t) {
    for (int64_t h = 0; h < shape.kv.num_kv_heads; ++h) {
      for (uint8_t* row : {kv.KeyAt(t, h), kv.ValueAt(t, h)}) {
        arrays.emplace_back(reinterpret_cast<float*>(row), shape.kv.head_dim);
      }
    }
  }
  for (int i = 0; i < 3; ++i) {
    arrays.emplace_back(state->recurrent(i), shape.recurrent_floats);
    arrays.emplace_back(state->conv_tail(i), shape.conv_floats);
  }
  arrays.emplace_back(state->last_hidden(), shape.hidden_floats);
  for (size_t i = 0; i < arrays.size(); ++i) {
    std::fill_n(arrays[i].first, arrays[i].second, static_cast<float>(i + 1));
  }
  for (size_t i = 0; i < arrays.size(); ++i) {
    for (int64_t j = 0; j < arrays[i].second; ++j) {
      ASSERT_EQ(arrays[i].first[j], static_cast<float>(i + 1)) << i;
    }
  }
}

TEST(SequenceStateTest, TakesNoMoreThanTheBudget) {
  const StateShape shape(SmallConfig());
  const auto memory =
      Memory(shape, 2 * shape.FixedBytes() + 3 * shape.PageBytes() - 1);
  const auto a = SequenceState::TryCreate(memory.get(), 1000);
  EXPECT_TRUE(a->TryGrow(kPageTokens));
  auto b = SequenceState::TryCreate(memory.get(), 1000);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(memory->used_bytes(), 2 * shape.FixedBytes() + shape.PageBytes());
  EXPECT_TRUE(b->TryGrow(kPageTokens));
  EXPECT_FALSE(b->TryGrow(kPageTokens + 1));
  EXPECT_EQ(SequenceState::TryCreate(memory.get(), 1), nullptr);
  // What one gives back, of either kind, the other may take.
  b.reset();
  EXPECT_EQ(memory->used_bytes(), shape.FixedBytes() + shape.PageBytes());
  EXPECT_TRUE(a->TryGrow(2 * kPageTokens));
  EXPECT_EQ(a->room(), 2 * kPageTokens);
}

TEST(SequenceStateTest, RestoredStatesShareFullPagesAndCopyTheLast) {
  const StateShape shape(SmallConfig());
  const auto memory = Memory(shape, 1 << 20);
  auto first = SequenceState::TryCreate(memory.get(), 1000);
  ASSERT_TRUE(first->TryGrow(70));
  first->pages()[0][0] = 1;
  first->pages()[1][0] = 2;
  first->recurrent(0)[0] = 3;
  first->num_tokens = 70;
  const StateSnapshot snapshot = first->TrySnapshot();
  ASSERT_NE(snapshot.fixed, nullptr);
  // It goes on, in the rest of its last page and in its own fixed part.
  first->recurrent(0)[0] = 4;
  const auto second =
      SequenceState::TryRestore(memory.get(), snapshot, /*max_tokens=*/200);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->num_tokens, 70);
  EXPECT_EQ(second->recurrent(0)[0], 3);
  EXPECT_EQ(second->pages()[0], first->pages()[0]);
  EXPECT_NE(second->pages()[1], first->pages()[1]);
  EXPECT_EQ(second->pages()[1][0], 2);
  first.reset();
  EXPECT_EQ(second->pages()[0][0], 1);
}

TEST(SequenceStateTest, AnEarlierSnapshotHasThePagesOfItsTokens) {
  const StateShape shape(SmallConfig());
  const auto memory = Memory(shape, 1 << 20);
  auto state = SequenceState::TryCreate(memory.get(), 1000);
  ASSERT_TRUE(state->TryGrow(200));
  state->num_tokens = 200;
  const StateSnapshot early = state->SnapshotAt(64, memory->TryTakeFixed());
  EXPECT_THAT(early.pages, ::testing::SizeIs(1));
  const StateSnapshot all = std::move(*state).IntoSnapshot();
  EXPECT_THAT(all.pages, ::testing::SizeIs(4));
  state.reset();
  EXPECT_EQ(memory->used_bytes(),
            2 * shape.FixedBytes() + 4 * shape.PageBytes());
}

TEST(StateMemoryTest, AddressSpaceThatIsNotThereIsAnError) {
  // 2^47 bytes is all that x86-64 gives a process.
  EXPECT_THAT(StateMemory::Create(StateShape(LargeConfig()), int64_t{1} << 60),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("address space")));
}

TEST(BlockPoolTest, GivenBlocksAreWarmUntilReleased) {
  auto pool = BlockPool::Create(/*block_floats=*/4096, /*max_blocks=*/2);
  ASSERT_THAT(pool, IsOk());
  float* const a = pool->Take();
  float* const b = pool->Take();
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(pool->Take(), nullptr);
  a[5] = 1;
  pool->Give(a);
  EXPECT_EQ(pool->warm_blocks(), 1);
  EXPECT_TRUE(pool->ReleaseOneWarm());
  EXPECT_FALSE(pool->ReleaseOneWarm());
  EXPECT_EQ(pool->Take(), a);
  EXPECT_EQ(a[5], 0);  // its memory is new
  pool->Give(a);
  pool->Give(b);
}

TEST(DraftsTest, ASequencePaysForThemAndASnapshotDoesNot) {
  const StateShape plain(SmallConfig());
  const StateShape shape(SmallConfig(), /*max_draft_tokens=*/3);
  EXPECT_EQ(plain.DraftBytes(), 0);
  EXPECT_EQ(shape.DraftFloats(), shape.num_linear_layers * 3 *
                                     (shape.conv_channels + shape.gate_floats));
  // One more layer of K and V: the MTP head's.
  EXPECT_EQ(shape.PageFloats() - plain.PageFloats(),
            2 * kPageTokens * shape.kv.num_kv_heads * shape.kv.head_dim);
  EXPECT_EQ(shape.Costs().BytesFor(1),
            shape.FixedBytes() + shape.DraftBytes() + shape.PageBytes());
  auto memory = StateMemory::Create(shape, int64_t{1} << 24);
  ASSERT_THAT(memory, IsOk());
  auto state = SequenceState::TryCreate(memory->get(), 200);
  ASSERT_NE(state, nullptr);
  ASSERT_TRUE(state->TryGrow(70));
  EXPECT_EQ((*memory)->used_bytes(), shape.Costs().BytesFor(70));
  state->num_tokens = 64;
  EXPECT_EQ(state->draft_rows(0) + shape.LayerInDrafts(1),
            state->draft_rows(1));
  const StateSnapshot snapshot = std::move(*state).IntoSnapshot();
  state.reset();
  EXPECT_EQ((*memory)->used_bytes(), shape.FixedBytes() + shape.PageBytes());
}

TEST(DraftsTest, AcceptedTokensArePending) {
  const StateShape shape(SmallConfig(), /*max_draft_tokens=*/3);
  auto memory = StateMemory::Create(shape, int64_t{1} << 24);
  ASSERT_THAT(memory, IsOk());
  auto state = SequenceState::TryCreate(memory->get(), 200);
  ASSERT_TRUE(state->TryGrow(10));
  state->num_tokens = 5;
  const std::vector<float> hidden(shape.hidden_floats, 0.5f);
  state->AcceptDrafts(0, nullptr);
  EXPECT_EQ(state->pending_tokens, 0);
  state->AcceptDrafts(2, hidden.data());
  EXPECT_EQ(state->num_tokens, 7);
  EXPECT_EQ(state->pending_tokens, 2);
  EXPECT_EQ(state->last_hidden()[shape.hidden_floats - 1], 0.5f);
}

TEST(DraftsTest, TheLastPageOfAFullPrefixIsItsOwners) {
  // Pair 63 belongs to token 64, which two continuations have different.
  const StateShape shape(SmallConfig(), /*max_draft_tokens=*/3);
  auto memory = StateMemory::Create(shape, int64_t{1} << 24);
  ASSERT_THAT(memory, IsOk());
  auto state = SequenceState::TryCreate(memory->get(), 200);
  ASSERT_TRUE(state->TryGrow(128));
  state->num_tokens = 128;
  state->pages()[1][3] = 7;
  const StateSnapshot snapshot = state->TrySnapshot();
  auto other = SequenceState::TryRestore(memory->get(), snapshot, 200);
  ASSERT_NE(other, nullptr);
  EXPECT_EQ(other->pages()[0], state->pages()[0]);
  EXPECT_NE(other->pages()[1], state->pages()[1]);
  EXPECT_EQ(other->pages()[1][3], 7);
  EXPECT_EQ(other->num_mtp_pairs, 127);
  other->Shrink(128);
  EXPECT_EQ(other->room(), 128);
  ASSERT_TRUE(other->TryGrow(200));
  other->Shrink(129);
  EXPECT_EQ(other->room(), 192);
}

TEST(ReservedFloatsTest, MovesItsMapping) {
  auto first = ReservedFloats::Create(1000, 10);
  ASSERT_THAT(first, IsOk());
  first->data()[999] = 3;
  ReservedFloats second = *std::move(first);
  EXPECT_EQ(second.data()[999], 3);
  EXPECT_EQ(second.size(), 1000);
  ReservedFloats third;
  EXPECT_EQ(third.data(), nullptr);
  EXPECT_EQ(third.ResidentBytes(), 0);
  third = std::move(second);
  EXPECT_EQ(third.data()[999], 3);
  EXPECT_GE(third.ResidentBytes(), 4096);
}

TEST(ReservedFloatsTest, SizesThatOverflowAreAnError) {
  EXPECT_THAT(ReservedFloats::Create(int64_t{1} << 62, 0),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace switchyard::attention_worker
