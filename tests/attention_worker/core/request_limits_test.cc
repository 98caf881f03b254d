#include "attention_worker/core/request_limits.h"

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

RequestLimits Limits() {
  return {
      .vocab_size = 100,
      .max_model_len = 50,
      .state_memory_bytes = 1000,
      .state_costs = {.fixed_bytes = 100, .page_bytes = 10, .page_tokens = 1}};
}

GenerationRequest Request() {
  GenerationRequest request;
  request.id = "r";
  request.prompt_ids = {1, 2, 3};
  request.max_tokens = 5;
  return request;
}

TEST(RequestLimitsTest, AcceptsAnOrdinaryRequest) {
  EXPECT_THAT(CheckRequest(Request(), Limits()), IsOk());
}

TEST(RequestLimitsTest, LongestSequenceLeavesTheLastTokenUnread) {
  EXPECT_EQ(Limits().LongestSequence(), 91);  // (1000 - 100) / 10 + 1
  RequestLimits limits = Limits();
  limits.state_memory_bytes = 99;
  EXPECT_EQ(limits.LongestSequence(), 0);
}

TEST(RequestLimitsTest, MaxTokensIsCutToTheContext) {
  GenerationRequest request = Request();
  EXPECT_EQ(Limits().MaxTokensOf(request), 8);
  request.max_tokens = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(Limits().MaxTokensOf(request), 50);
  EXPECT_THAT(CheckRequest(request, Limits()), IsOk());
}

struct Refusal {
  const char* name;
  std::function<void(GenerationRequest*)> change;
  const char* text;
};

class RefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, SaysWhatIsWrong) {
  GenerationRequest request = Request();
  GetParam().change(&request);
  EXPECT_THAT(
      CheckRequest(request, Limits()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().text)));
}

const double kNan = std::nan("");
const double kInf = std::numeric_limits<double>::infinity();

INSTANTIATE_TEST_SUITE_P(
    All, RefusalTest,
    ::testing::Values(
        Refusal{"biased_id",
                [](auto* r) {
                  r->sampling.rules.logit_bias = {{100, 1.0f}};
                },
                "logit_bias is for token 100"},
        Refusal{"twice_biased_id",
                [](auto* r) {
                  r->sampling.rules.logit_bias = {{1, 1.0f}, {1, 2.0f}};
                },
                "token 1 twice"},
        Refusal{
            "nan_bias",
            [](auto* r) {
              r->sampling.rules.logit_bias = {{1, static_cast<float>(kNan)}};
            },
            "logit_bias is nan"},
        Refusal{"allowed_id",
                [](auto* r) { r->sampling.rules.allowed_ids = {-1}; },
                "allowed_token_ids[0] is -1"},
        Refusal{"nothing_allowed",
                [](auto* r) {
                  r->sampling.rules.allowed_ids = {4, 5};
                  r->sampling.rules.late_ids = {5, 4};
                  r->sampling.rules.min_tokens = 1;
                },
                "every token of allowed_token_ids ends the output"},
        Refusal{"closing",
                [](auto* r) {
                  r->sampling.rules.thinking = ThinkingBudget{.tokens = 1};
                },
                "0 closing_ids"},
        Refusal{"prompt_logprobs",
                [](auto* r) {
                  r->want_logprobs = true;
                  r->prompt_logprobs_from = 0;
                },
                "prompt_logprobs_from is 0"},
        Refusal{"prompt_logprobs_unwanted",
                [](auto* r) { r->prompt_logprobs_from = 1; },
                "want_logprobs set"},
        Refusal{"no_id", [](auto* r) { r->id = ""; }, "no id"},
        Refusal{"long_id", [](auto* r) { r->id = std::string(257, 'x'); },
                "257 bytes; at most 256"},
        Refusal{"no_prompt", [](auto* r) { r->prompt_ids.clear(); },
                "no tokens"},
        Refusal{"prompt_id", [](auto* r) { r->prompt_ids[1] = 100; },
                "prompt_ids[1] is 100, but the vocabulary has 100"},
        Refusal{"negative_id", [](auto* r) { r->prompt_ids[0] = -1; },
                "prompt_ids[0] is -1"},
        Refusal{"resumed_id",
                [](auto* r) {
                  r->resumed_output_ids = {7, 101};
                },
                "resumed_output_ids[1] is 101"},
        Refusal{"no_output", [](auto* r) { r->max_tokens = 0; },
                "max_tokens is 0"},
        Refusal{"too_much_resumed",
                [](auto* r) { r->resumed_output_ids.assign(6, 1); },
                "6 tokens, more than max_tokens, 5"},
        Refusal{"prompt_too_long", [](auto* r) { r->prompt_ids.assign(50, 1); },
                "the prompt has 50 tokens; this model's context length is 50"},
        Refusal{"resumed_too_long",
                [](auto* r) {
                  r->prompt_ids.assign(49, 1);
                  r->resumed_output_ids.assign(2, 1);
                },
                "51 tokens; this model's context length is 50"},
        Refusal{"temperature", [](auto* r) { r->sampling.temperature = -0.1; },
                "temperature is -0.1"},
        Refusal{"temperature_nan",
                [](auto* r) { r->sampling.temperature = kNan; },
                "temperature is nan"},
        Refusal{"temperature_inf",
                [](auto* r) { r->sampling.temperature = kInf; },
                "temperature is inf"},
        Refusal{"top_p_0", [](auto* r) { r->sampling.top_p = 0; },
                "top_p is 0"},
        Refusal{"top_p_nan", [](auto* r) { r->sampling.top_p = kNan; },
                "top_p is nan"},
        Refusal{"min_p", [](auto* r) { r->sampling.min_p = 1.5; },
                "min_p is 1.5; it must be in [0, 1]"},
        Refusal{"presence",
                [](auto* r) { r->sampling.presence_penalty = -2.5; },
                "presence_penalty is -2.5"},
        Refusal{"frequency",
                [](auto* r) { r->sampling.frequency_penalty = kNan; },
                "frequency_penalty is nan"},
        Refusal{"repetition",
                [](auto* r) { r->sampling.repetition_penalty = 0; },
                "repetition_penalty is 0"},
        Refusal{"repetition_inf",
                [](auto* r) { r->sampling.repetition_penalty = kInf; },
                "repetition_penalty is inf"},
        Refusal{"top_logprobs",
                [](auto* r) {
                  r->want_logprobs = true;
                  r->num_top_logprobs = 21;
                },
                "num_top_logprobs is 21"},
        Refusal{"logprobs_unset", [](auto* r) { r->num_top_logprobs = 1; },
                "want_logprobs is not set"},
        Refusal{"stop_ids", [](auto* r) { r->stop_token_ids.assign(1025, 1); },
                "1025 tokens; at most 1024"}),
    [](const auto& info) { return info.param.name; });

TEST(RequestLimitsTest, CanNeverFitSaysTheNumbers) {
  RequestLimits limits = Limits();
  limits.state_memory_bytes = 300;  // 21 tokens
  GenerationRequest request = Request();
  request.max_tokens = 18;
  EXPECT_THAT(CheckRequest(request, limits), IsOk());
  request.max_tokens = 19;
  EXPECT_THAT(CheckRequest(request, limits),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("make 22 tokens"),
                             HasSubstr("310 bytes"), HasSubstr("300 bytes"),
                             HasSubstr("enough for 21 tokens"))));
}

}  // namespace
}  // namespace switchyard::attention_worker
