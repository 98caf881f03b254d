#include "router/client/generation_codec.h"

#include <cmath>
#include <cstdint>
#include <limits>

#include "attention_worker/service/generation_codec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TokenRequest Request() {
  TokenRequest request;
  request.id = "r";
  request.prompt_ids = {0, 2147483647};
  request.resumed_output_ids = {5};
  request.sampling = {.temperature = 0,
                      .top_p = 0.25,
                      .top_k = -1,
                      .min_p = 0.125,
                      .presence_penalty = 1.5,
                      .frequency_penalty = -1.5,
                      .repetition_penalty = 1.25,
                      .seed = 0xfedcba9876543210};
  request.sampling.logit_bias = {{3, 1.5f}, {9, -100}};
  request.sampling.allowed_token_ids = {4, 2147483647};
  request.sampling.min_tokens = 6;
  request.sampling.thinking_budget =
      ThinkingBudget{.tokens = 12, .end_id = 5, .closing_ids = {4, 5}};
  request.max_tokens = 4294967295;
  request.stop_token_ids = {7, 8};
  request.want_logprobs = true;
  request.num_top_logprobs = 20;
  request.prompt_logprobs_from = 2;
  request.cache_scope = "scope";
  return request;
}

// Both ends of wire 1: what the router says is what the engine hears.
TEST(GenerationWireTest, ARequestSurvivesTheWire) {
  const auto message = TokenRequestToProto(Request(), "abc");
  ASSERT_THAT(message, IsOk());
  EXPECT_EQ(message->model_fingerprint(), "abc");
  v1::GenerateRequest received;
  ASSERT_TRUE(received.ParseFromString(message->SerializeAsString()));
  const auto got = attention_worker::GenerationRequestFromProto(received);
  ASSERT_THAT(got, IsOk());
  EXPECT_EQ(got->id, "r");
  EXPECT_THAT(got->prompt_ids, ElementsAre(0, 2147483647));
  EXPECT_THAT(got->resumed_output_ids, ElementsAre(5));
  EXPECT_EQ(got->sampling.temperature, 0);
  EXPECT_EQ(got->sampling.top_p, 0.25);
  EXPECT_EQ(got->sampling.top_k, -1);
  EXPECT_EQ(got->sampling.min_p, 0.125);
  EXPECT_EQ(got->sampling.presence_penalty, 1.5);
  EXPECT_EQ(got->sampling.frequency_penalty, -1.5);
  EXPECT_EQ(got->sampling.repetition_penalty, 1.25);
  EXPECT_EQ(got->sampling.seed, 0xfedcba9876543210);
  const attention_worker::TokenRules& rules = got->sampling.rules;
  EXPECT_THAT(rules.logit_bias, ElementsAre(Pair(3, 1.5f), Pair(9, -100)));
  EXPECT_THAT(rules.allowed_ids, ElementsAre(4, 2147483647));
  EXPECT_EQ(rules.min_tokens, 6);
  EXPECT_THAT(rules.late_ids, ElementsAre(7, 8));
  ASSERT_TRUE(rules.thinking.has_value());
  EXPECT_EQ(rules.thinking->tokens, 12);
  EXPECT_EQ(rules.thinking->begin_id, -1);
  EXPECT_EQ(rules.thinking->end_id, 5);
  EXPECT_THAT(rules.thinking->closing, ElementsAre(4, 5));
  EXPECT_EQ(got->max_tokens, 4294967295);
  EXPECT_THAT(got->stop_token_ids, ElementsAre(7, 8));
  EXPECT_TRUE(got->want_logprobs);
  EXPECT_EQ(got->num_top_logprobs, 20);
  EXPECT_EQ(got->prompt_logprobs_from, 2);
  EXPECT_EQ(got->cache_scope, "scope");
}

TEST(GenerationWireTest, ATokenSurvivesTheWire) {
  const v1::GenerateReply reply = attention_worker::TokenToProto(
      {.token = {.id = 2147483647,
                 .logprob = -0.1f,
                 .top_logprobs = {{3, -0.1f}, {4, -INFINITY}},
                 .rank = 151936},
       .position = int64_t{1} << 40,
       .cached_prompt_tokens = 17});
  const auto event = TokenEventFromProto(reply.token());
  ASSERT_THAT(event, IsOk());
  EXPECT_EQ(event->id, 2147483647);
  EXPECT_EQ(event->position, int64_t{1} << 40);
  EXPECT_EQ(event->logprob, -0.1f);
  EXPECT_EQ(event->cached_prompt_tokens, 17);
  EXPECT_EQ(event->rank, 151936);
  EXPECT_THAT(event->top_logprobs,
              ElementsAre(Pair(3, -0.1f), Pair(4, -INFINITY)));
}

TEST(GenerationWireTest, TheEndSurvivesTheWire) {
  for (const auto reason : {attention_worker::FinishReason::kStop,
                            attention_worker::FinishReason::kLength}) {
    const v1::GenerateReply reply = attention_worker::FinishedToProto(
        reason, {.prompt_tokens = 1,
                 .cached_prompt_tokens = 2,
                 .output_tokens = 3,
                 .queue_time = absl::Milliseconds(250),
                 .prefill_time = absl::Seconds(5),
                 .decode_time = absl::Seconds(6)});
    const auto outcome = TokenOutcomeFromProto(reply.finished());
    ASSERT_THAT(outcome, IsOk());
    EXPECT_EQ(outcome->finish == TokenFinish::kStop,
              reason == attention_worker::FinishReason::kStop);
    EXPECT_EQ(outcome->usage.prompt_tokens, 1);
    EXPECT_EQ(outcome->usage.cached_prompt_tokens, 2);
    EXPECT_EQ(outcome->usage.output_tokens, 3);
    EXPECT_EQ(outcome->usage.queue_time, absl::Milliseconds(250));
    EXPECT_EQ(outcome->usage.prefill_time, absl::Seconds(5));
    EXPECT_EQ(outcome->usage.decode_time, absl::Seconds(6));
  }
}

TEST(GenerationWireTest, WorkerInfoSurvivesTheWire) {
  using attention_worker::WorkerState;
  using State = AttentionWorkerInfo::State;
  const std::pair<WorkerState, State> states[] = {
      {WorkerState::kLoading, State::kLoading},
      {WorkerState::kReady, State::kReady},
      {WorkerState::kWaitingExperts, State::kWaitingExperts},
      {WorkerState::kDraining, State::kDraining}};
  for (const auto& [sent, expected] : states) {
    v1::WorkerInfo message;
    attention_worker::WorkerInfoToProto({.state = sent,
                                         .instance_id = "i",
                                         .model_fingerprint = "f",
                                         .version = "v",
                                         .vocab_size = 1,
                                         .max_model_len = 2,
                                         .loading_progress = 0.5,
                                         .load = {.running = 3,
                                                  .waiting = 4,
                                                  .state_bytes_used = 5,
                                                  .state_bytes_budget = 6,
                                                  .accepted_length = 2.5},
                                         .message = "m"},
                                        &message);
    const auto info = AttentionWorkerInfoFromProto(message);
    ASSERT_THAT(info, IsOk());
    EXPECT_EQ(info->state, expected);
    EXPECT_EQ(info->instance_id, "i");
    EXPECT_EQ(info->model_fingerprint, "f");
    EXPECT_EQ(info->version, "v");
    EXPECT_EQ(info->vocab_size, 1);
    EXPECT_EQ(info->max_model_len, 2);
    EXPECT_EQ(info->loading_progress, 0.5);
    EXPECT_EQ(info->running_requests, 3);
    EXPECT_EQ(info->waiting_requests, 4);
    EXPECT_EQ(info->state_bytes_used, 5);
    EXPECT_EQ(info->state_bytes_budget, 6);
    EXPECT_EQ(info->message, "m");
    EXPECT_EQ(info->accepted_length, 2.5);
  }
}

TEST(TokenRequestToProtoTest, RefusesWhatTheMessageCannotHold) {
  TokenRequest request = Request();
  request.max_tokens = int64_t{1} << 32;
  EXPECT_THAT(TokenRequestToProto(request, ""),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("max_tokens is 4294967296")));
  request = Request();
  request.prompt_ids[1] = -1;
  EXPECT_THAT(TokenRequestToProto(request, ""),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("prompt_ids[1] is -1")));
  request = Request();
  request.num_top_logprobs = -1;
  EXPECT_THAT(TokenRequestToProto(request, ""),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("num_top_logprobs is -1")));
}

TEST(FromProtoTest, RefusesWhatNoWorkerSends) {
  v1::Token token;
  token.set_id(0x80000000);
  EXPECT_THAT(TokenEventFromProto(token),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("2147483648")));
  token.set_id(1);
  token.set_position(uint64_t{1} << 63);
  EXPECT_THAT(TokenEventFromProto(token),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("position")));
  token.set_position(1);
  token.add_top_logprobs()->set_id(0xffffffff);
  EXPECT_THAT(TokenEventFromProto(token),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("top_logprobs")));
  token.clear_top_logprobs();
  for (int i = 0; i < 21; ++i) token.add_top_logprobs();
  EXPECT_THAT(TokenEventFromProto(token),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("21")));

  v1::Finished finished;
  EXPECT_THAT(TokenOutcomeFromProto(finished),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("reason 0")));
  finished.set_reason(v1::Finished::STOP);
  finished.set_queue_seconds(std::nan(""));
  EXPECT_THAT(
      TokenOutcomeFromProto(finished),
      StatusIs(absl::StatusCode::kInternal, HasSubstr("queue_seconds")));
  finished.set_queue_seconds(0);
  finished.set_output_tokens(std::numeric_limits<uint64_t>::max());
  EXPECT_THAT(
      TokenOutcomeFromProto(finished),
      StatusIs(absl::StatusCode::kInternal, HasSubstr("output_tokens")));

  v1::WorkerInfo info;
  EXPECT_THAT(AttentionWorkerInfoFromProto(info),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("state 0")));
  info.set_state(static_cast<v1::WorkerInfo::State>(99));
  EXPECT_THAT(AttentionWorkerInfoFromProto(info),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("state 99")));
  info.set_state(v1::WorkerInfo::READY);
  info.set_loading_progress(1.5);
  EXPECT_THAT(AttentionWorkerInfoFromProto(info),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("1.5")));
  info.set_loading_progress(1);
  info.set_accepted_length(-1);
  EXPECT_THAT(
      AttentionWorkerInfoFromProto(info),
      StatusIs(absl::StatusCode::kInternal, HasSubstr("accepted_length")));
}

}  // namespace
}  // namespace switchyard::router
