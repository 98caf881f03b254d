#include "attention_worker/service/generation_codec.h"

#include <cstdint>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(GenerationCodecTest, UnsetFieldsAreNeutral) {
  const auto request = GenerationRequestFromProto(v1::GenerateRequest());
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->sampling.temperature, 1.0);
  EXPECT_EQ(request->sampling.top_p, 1.0);
  EXPECT_EQ(request->sampling.top_k, 0);
  EXPECT_EQ(request->sampling.repetition_penalty, 1.0);
  EXPECT_EQ(request->deadline, absl::InfiniteFuture());
}

TEST(GenerationCodecTest, AZeroThatIsSetIsNotTheDefault) {
  v1::GenerateRequest message;
  message.mutable_sampling()->set_temperature(0);
  message.mutable_sampling()->set_top_p(0);
  const auto request = GenerationRequestFromProto(message);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->sampling.temperature, 0.0);
  EXPECT_EQ(request->sampling.top_p, 0.0);  // the engine refuses it
}

TEST(GenerationCodecTest, EveryField) {
  v1::GenerateRequest message;
  message.set_request_id("r");
  message.add_prompt_ids(1);
  message.add_prompt_ids(2147483647);
  message.add_resumed_output_ids(3);
  message.add_stop_token_ids(4);
  message.set_max_tokens(4294967295);
  message.set_want_logprobs(true);
  message.set_num_top_logprobs(20);
  message.set_priority(-7);
  message.set_client("somebody");
  message.set_cache_scope(std::string(64, 's'));
  v1::SamplingParams* sampling = message.mutable_sampling();
  sampling->set_temperature(0.5);
  sampling->set_top_p(0.25);
  sampling->set_top_k(-3);
  sampling->set_min_p(0.125);
  sampling->set_presence_penalty(1.5);
  sampling->set_frequency_penalty(-1.5);
  sampling->set_repetition_penalty(1.25);
  sampling->set_seed(0xfedcba9876543210);
  const auto request = GenerationRequestFromProto(message);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->id, "r");
  EXPECT_THAT(request->prompt_ids, ElementsAre(1, 2147483647));
  EXPECT_THAT(request->resumed_output_ids, ElementsAre(3));
  EXPECT_THAT(request->stop_token_ids, ElementsAre(4));
  EXPECT_EQ(request->max_tokens, 4294967295);
  EXPECT_TRUE(request->want_logprobs);
  EXPECT_EQ(request->num_top_logprobs, 20);
  EXPECT_EQ(request->priority, -7);
  EXPECT_EQ(request->cache_scope, std::string(64, 's'));
  message.set_client("somebody else");
  EXPECT_NE(GenerationRequestFromProto(message)->client, request->client);
  message.set_client("somebody");
  EXPECT_EQ(GenerationRequestFromProto(message)->client, request->client);
  EXPECT_EQ(request->sampling.temperature, 0.5);
  EXPECT_EQ(request->sampling.top_p, 0.25);
  EXPECT_EQ(request->sampling.top_k, -3);
  EXPECT_EQ(request->sampling.min_p, 0.125);
  EXPECT_EQ(request->sampling.presence_penalty, 1.5);
  EXPECT_EQ(request->sampling.frequency_penalty, -1.5);
  EXPECT_EQ(request->sampling.repetition_penalty, 1.25);
  EXPECT_EQ(request->sampling.seed, 0xfedcba9876543210);
}

TEST(GenerationCodecTest, AScopeWithoutEndIsRefused) {
  v1::GenerateRequest message;
  message.set_cache_scope(std::string(65, 's'));
  EXPECT_THAT(GenerationRequestFromProto(message),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("cache_scope has 65 bytes")));
}

TEST(GenerationCodecTest, IdsThatAreNoIdsAreRefused) {
  v1::GenerateRequest message;
  message.add_prompt_ids(1);
  message.add_prompt_ids(0x80000000);
  EXPECT_THAT(GenerationRequestFromProto(message),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("prompt_ids[1] is 2147483648")));
  message.clear_prompt_ids();
  message.add_resumed_output_ids(4294967295);
  EXPECT_THAT(GenerationRequestFromProto(message),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("resumed_output_ids[0] is 4294967295")));
  message.clear_resumed_output_ids();
  message.add_stop_token_ids(4294967295);
  EXPECT_THAT(GenerationRequestFromProto(message),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("stop_token_ids[0]")));
}

TEST(GenerationCodecTest, TopLogprobsDoNotWrapAround) {
  v1::GenerateRequest message;
  message.set_num_top_logprobs(4294967295);
  EXPECT_THAT(GenerationRequestFromProto(message),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("num_top_logprobs is 4294967295")));
}

TEST(GenerationCodecTest, FingerprintOfAnotherModel) {
  v1::GenerateRequest message;
  WorkerInfo info;
  info.model_fingerprint = "abc";
  EXPECT_THAT(CheckFingerprint(message, info), IsOk());
  message.set_model_fingerprint("abc");
  EXPECT_THAT(CheckFingerprint(message, info), IsOk());
  message.set_model_fingerprint("xyz");
  EXPECT_THAT(CheckFingerprint(message, info),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("abc"), HasSubstr("xyz"))));
}

TEST(GenerationCodecTest, Replies) {
  const v1::GenerateReply token = TokenToProto(
      {.token = {.id = 7, .logprob = -1.5f, .top_logprobs = {{7, -1.5f}}},
       .position = 12,
       .cached_prompt_tokens = {}});
  EXPECT_EQ(token.token().id(), 7);
  EXPECT_EQ(token.token().position(), 12);
  EXPECT_EQ(token.token().logprob(), -1.5f);
  ASSERT_EQ(token.token().top_logprobs_size(), 1);
  EXPECT_EQ(token.token().top_logprobs(0).id(), 7);
  EXPECT_FALSE(token.token().has_cached_prompt_tokens());
  EXPECT_EQ(
      TokenToProto(
          {.token = SampledToken(), .position = 0, .cached_prompt_tokens = 0})
          .token()
          .cached_prompt_tokens(),
      0);

  const v1::GenerateReply finished = FinishedToProto(
      FinishReason::kLength, {.prompt_tokens = 1,
                              .cached_prompt_tokens = 2,
                              .output_tokens = 3,
                              .queue_time = absl::Seconds(4),
                              .prefill_time = absl::Milliseconds(500),
                              .decode_time = -absl::Seconds(6)});
  EXPECT_EQ(finished.finished().reason(), v1::Finished::LENGTH);
  EXPECT_EQ(finished.finished().prompt_tokens(), 1);
  EXPECT_EQ(finished.finished().cached_prompt_tokens(), 2);
  EXPECT_EQ(finished.finished().output_tokens(), 3);
  EXPECT_EQ(finished.finished().queue_seconds(), 4.0);
  EXPECT_EQ(finished.finished().prefill_seconds(), 0.5);
  EXPECT_EQ(finished.finished().decode_seconds(), 0.0);  // a clock set back
  EXPECT_EQ(FinishedToProto(FinishReason::kStop, {}).finished().reason(),
            v1::Finished::STOP);
}

}  // namespace
}  // namespace switchyard::attention_worker
