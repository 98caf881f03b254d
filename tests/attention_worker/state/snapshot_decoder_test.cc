#include "attention_worker/state/snapshot_decoder.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/config.h"
#include "model/sha256.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMaxTokens = 1000;

model::ModelConfig Config() {
  model::ModelConfig config;
  config.layer_types = {model::LayerType::kLinearAttention,
                        model::LayerType::kFullAttention};
  config.num_key_value_heads = 1;
  config.head_dim = 32;
  config.linear_num_key_heads = 1;
  config.linear_num_value_heads = 1;
  config.linear_key_head_dim = 4;
  config.linear_value_head_dim = 4;
  config.linear_conv_kernel_dim = 4;
  config.hidden_size = 8;
  return config;
}

class SnapshotDecoderTest : public ::testing::Test {
 protected:
  SnapshotIdentity Identity(const StateShape& shape) const {
    return {.model = "model-a", .layout = LayoutOf(shape)};
  }
  SnapshotDecoder Decoder(int64_t max_tokens = kMaxTokens) const {
    return {Identity(shape_), shape_, max_tokens};
  }
  static std::string State(const StateShape& shape, int64_t tokens) {
    std::string state(static_cast<size_t>(SnapshotStateBytes(shape, tokens)),
                      '\0');
    for (size_t i = 0; i < state.size(); ++i) {
      state[i] = static_cast<char>(i * 31 + i / 7);
    }
    return state;
  }
  std::string Object(const StateShape& shape,
                     const std::vector<int32_t>& tokens,
                     const std::string& scope = "") const {
    std::string object = SnapshotPreamble(Identity(shape), {scope, tokens}) +
                         State(shape, static_cast<int64_t>(tokens.size()));
    model::Sha256 sha256;
    sha256.Update(object);
    return object + sha256.FinishHex();
  }

  const StateShape shape_{Config()};
  const std::vector<int32_t> tokens_ = std::vector<int32_t>(70, 5);
};

TEST_F(SnapshotDecoderTest, PartsOfAnySize) {
  const std::string object = Object(shape_, tokens_);
  for (const size_t part :
       {size_t{1}, size_t{7}, size_t{1000}, object.size()}) {
    SnapshotDecoder decoder = Decoder();
    std::string state;
    for (size_t at = 0; at < object.size(); at += part) {
      ASSERT_FALSE(decoder.done());
      ASSERT_THAT(
          decoder.Feed(absl::string_view(object).substr(at, part), &state),
          IsOk());
    }
    EXPECT_TRUE(decoder.done());
    EXPECT_EQ(decoder.prefix().tokens, absl::MakeConstSpan(tokens_));
    EXPECT_EQ(decoder.prefix().scope, "");
    EXPECT_EQ(state, State(shape_, 70));
    EXPECT_THAT(decoder.Feed("x", &state),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("behind")));
  }
}

TEST_F(SnapshotDecoderTest, AScopeComesAlong) {
  SnapshotDecoder decoder = Decoder();
  std::string state;
  ASSERT_THAT(decoder.Feed(Object(shape_, tokens_, "mine"), &state), IsOk());
  EXPECT_TRUE(decoder.done());
  EXPECT_EQ(decoder.prefix().scope, "mine");
  EXPECT_EQ(decoder.prefix().tokens, absl::MakeConstSpan(tokens_));
}

TEST_F(SnapshotDecoderTest, EveryDamagedByteIsSeen) {
  const std::string object = Object(shape_, {1, 2, 3}, "mine");
  for (size_t i = 0; i < object.size(); ++i) {
    std::string damaged = object;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    SnapshotDecoder decoder = Decoder();
    std::string state;
    const absl::Status status = decoder.Feed(damaged, &state);
    EXPECT_FALSE(status.ok() && decoder.done()) << "byte " << i;
  }
}

TEST_F(SnapshotDecoderTest, ACutOneIsNotDone) {
  const std::string object = Object(shape_, tokens_);
  SnapshotDecoder decoder = Decoder();
  std::string state;
  EXPECT_THAT(
      decoder.Feed(absl::string_view(object).substr(0, object.size() - 1),
                   &state),
      IsOk());
  EXPECT_FALSE(decoder.done());
}

TEST_F(SnapshotDecoderTest, AnotherNumberTypeOfKeysIsRefusedBeforeTheState) {
  const StateShape other(Config(), 0, kernels::KvDType::kBF16);
  SnapshotDecoder decoder = Decoder();
  std::string state;
  EXPECT_THAT(
      decoder.Feed(SnapshotPreamble(Identity(other), {"", tokens_}), &state),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr("bfloat16"), HasSubstr("float32"))));
  EXPECT_FALSE(decoder.has_tokens());
}

TEST_F(SnapshotDecoderTest, AnotherModelIsRefused) {
  SnapshotDecoder decoder = Decoder();
  std::string state;
  EXPECT_THAT(decoder.Feed(SnapshotPreamble(
                               {.model = "model-b", .layout = LayoutOf(shape_)},
                               {"", tokens_}),
                           &state),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("model-a"), HasSubstr("model-b"))));
}

TEST_F(SnapshotDecoderTest, MoreTokensThanASequenceHasAreRefused) {
  SnapshotDecoder decoder = Decoder(/*max_tokens=*/69);
  std::string state;
  EXPECT_THAT(decoder.Feed(Object(shape_, tokens_), &state),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("70"), HasSubstr("69"))));
}

TEST_F(SnapshotDecoderTest, SomethingElse) {
  SnapshotDecoder decoder = Decoder();
  std::string state;
  EXPECT_THAT(decoder.Feed(std::string(100, 'x'), &state),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("none")));
}

}  // namespace
}  // namespace switchyard::attention_worker
