#include "attention_worker/speculative/options.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

TEST(SpeculativeOptionsTest, FollowTheModel) {
  EXPECT_EQ(*DraftTokens({}, /*has_mtp=*/true), 3);
  EXPECT_EQ(*DraftTokens({}, /*has_mtp=*/false), 0);
  EXPECT_EQ(*DraftTokens({.algorithm = "NONE"}, true), 0);
  EXPECT_EQ(*DraftTokens({.num_steps = 0}, true), 0);
  EXPECT_EQ(*DraftTokens({.algorithm = "NEXTN", .num_steps = 8}, true), 8);
  EXPECT_EQ(*DraftTokens({.num_steps = 3, .num_draft_tokens = 4}, true), 3);
}

TEST(SpeculativeOptionsTest, SayWhatIsWrong) {
  EXPECT_THAT(DraftTokens({.algorithm = "NEXTN"}, false),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("no mtp.* tensors")));
  EXPECT_THAT(DraftTokens({.algorithm = "EAGLE3"}, true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("auto, NEXTN or NONE")));
  EXPECT_THAT(
      DraftTokens({.num_steps = 9}, true),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("[0, 8]")));
  EXPECT_THAT(DraftTokens({.num_steps = -1}, true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("speculative_num_steps is -1")));
  EXPECT_THAT(DraftTokens({.eagle_topk = 4}, true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("speculative_eagle_topk is 4")));
  EXPECT_THAT(DraftTokens({.num_steps = 3, .num_draft_tokens = 8}, true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("verified with 4 tokens")));
}

}  // namespace
}  // namespace switchyard::attention_worker
