#include "attention_worker/state/sequence_state.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "attention_worker/state/reserved_floats.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/config.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

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

TEST(StateShapeTest, CostsOfThe80BModel) {
  const StateShape shape(LargeConfig());
  EXPECT_EQ(shape.num_full_layers, 12);
  EXPECT_EQ(shape.num_linear_layers, 36);
  EXPECT_EQ(shape.kv_width, 512);
  EXPECT_EQ(shape.recurrent_floats, 32 * 128 * 128);
  EXPECT_EQ(shape.conv_floats, 3 * 8192);
  // 72 MiB of S and 3.4 MiB of convolution tails; 48 KiB of fp32 K and V a
  // token.
  EXPECT_EQ(shape.FixedBytes(), (int64_t{72} << 20) + 36 * 3 * 8192 * 4);
  EXPECT_EQ(shape.BytesPerToken(), 48 << 10);
  EXPECT_EQ(shape.BytesFor(262144),
            shape.FixedBytes() + int64_t{262144} * (48 << 10));
}

TEST(SequenceStateTest, BeginsCleanAndZero) {
  const StateShape shape(SmallConfig());
  SequenceState state(shape, 10);
  EXPECT_EQ(state.health, StateHealth::kClean);
  EXPECT_EQ(state.num_tokens, 0);
  EXPECT_EQ(state.max_tokens(), 10);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(std::all_of(state.recurrent(i),
                            state.recurrent(i) + shape.recurrent_floats,
                            [](float x) { return x == 0; }));
    EXPECT_TRUE(std::all_of(state.conv_tail(i),
                            state.conv_tail(i) + shape.conv_floats,
                            [](float x) { return x == 0; }));
  }
}

TEST(SequenceStateTest, EveryArrayIsItsOwn) {
  const StateShape shape(SmallConfig());
  SequenceState state(shape, 10);
  // Each array filled with a number of its own: the numbers must survive.
  std::vector<std::pair<float*, int64_t>> arrays;
  arrays.emplace_back(state.keys(0), 10 * shape.kv_width);
  arrays.emplace_back(state.values(0), 10 * shape.kv_width);
  for (int i = 0; i < 3; ++i) {
    arrays.emplace_back(state.recurrent(i), shape.recurrent_floats);
    arrays.emplace_back(state.conv_tail(i), shape.conv_floats);
  }
  for (size_t i = 0; i < arrays.size(); ++i) {
    std::fill_n(arrays[i].first, arrays[i].second, static_cast<float>(i + 1));
  }
  for (size_t i = 0; i < arrays.size(); ++i) {
    for (int64_t j = 0; j < arrays[i].second; ++j) {
      ASSERT_EQ(arrays[i].first[j], static_cast<float>(i + 1)) << i;
    }
  }
}

TEST(SequenceStateTest, MemoryComesWithTheTokens) {
  const StateShape shape(LargeConfig());
  auto state = SequenceState::Create(shape, 262144);
  ASSERT_THAT(state, IsOk());
  EXPECT_LT((*state)->ResidentBytes(), int64_t{1} << 20);
  // 100 tokens in every full layer.
  const int64_t tokens = 100;
  for (int i = 0; i < shape.num_full_layers; ++i) {
    std::fill_n((*state)->keys(i), tokens * shape.kv_width, 1.0f);
    std::fill_n((*state)->values(i), tokens * shape.kv_width, 1.0f);
  }
  const int64_t resident = (*state)->ResidentBytes();
  EXPECT_GE(resident, tokens * shape.BytesPerToken());
  // No more than the pages at both ends of each K and V beyond it.
  EXPECT_LE(resident, tokens * shape.BytesPerToken() + 2 * 2 * 12 * 4096);
}

TEST(SequenceStateTest, StatesDoNotShareMemory) {
  const StateShape shape(SmallConfig());
  SequenceState a(shape, 4);
  SequenceState b(shape, 4);
  std::fill_n(a.keys(0), 4 * shape.kv_width, 5.0f);
  EXPECT_EQ(b.keys(0)[0], 0);
}

TEST(SequenceStateTest, AddressSpaceThatIsNotThereIsAnError) {
  const StateShape shape(LargeConfig());
  // 2^47 bytes is all that x86-64 gives a process.
  EXPECT_THAT(SequenceState::Create(shape, int64_t{1} << 33),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("address space")));
}

TEST(MtpStateTest, KeysAndValuesApart) {
  const StateShape shape(SmallConfig());
  auto state = MtpState::Create(shape, 6);
  ASSERT_THAT(state, IsOk());
  EXPECT_EQ((*state)->num_tokens, 0);
  EXPECT_EQ((*state)->max_tokens(), 6);
  std::fill_n((*state)->keys(), 6 * shape.kv_width, 1.0f);
  std::fill_n((*state)->values(), 6 * shape.kv_width, 2.0f);
  EXPECT_EQ((*state)->keys()[6 * shape.kv_width - 1], 1);
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
