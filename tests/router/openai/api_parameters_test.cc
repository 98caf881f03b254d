// Parameters that reach the worker, and those that shape the text.
//
// The whole router but its workers (api_test_util.h).

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST_F(ApiTest, RulesAboutTokensReachTheWorker) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  PostJson(kChat, Hi(R"("logit_bias":{"5":-2},"min_tokens":1,
                        "allowed_token_ids":[5,6,7])"));
  const auto& sampling =
      workers_[0]->WaitForCall(0, Soon())->request().sampling;
  EXPECT_THAT(sampling.logit_bias, ElementsAre(Pair(5, -2.0f)));
  EXPECT_THAT(sampling.allowed_token_ids, ElementsAre(5, 6, 7));
  EXPECT_EQ(sampling.min_tokens, 1);
  EXPECT_FALSE(sampling.thinking_budget.has_value());
}

TEST_F(ApiTest, AThinkingBudgetSaysHowTheReasoningEnds) {
  Start();
  workers_[0]->Answer(Ids("4</think>\n\nok"));
  PostJson(kChat, Hi(R"("enable_thinking":true,"thinking_budget":40)"));
  PostJson(kChat, Hi(R"("thinking_budget":40)"));
  const auto opened =
      workers_[0]->WaitForCall(0, Soon())->request().sampling.thinking_budget;
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(opened->tokens, 40);
  EXPECT_FALSE(opened->begin_id.has_value());
  EXPECT_EQ(opened->end_id, tokenizer_->AddedTokenId("</think>"));
  EXPECT_EQ(tokenizer_->Decode(opened->closing_ids, false), "\n</think>\n\n");
  // The prompt does not open <think>; the model may.
  const auto maybe =
      workers_[0]->WaitForCall(1, Soon())->request().sampling.thinking_budget;
  ASSERT_TRUE(maybe.has_value());
  EXPECT_EQ(maybe->begin_id, tokenizer_->AddedTokenId("<think>"));
}

TEST_F(ApiTest, ReasoningCanBeHiddenOrSentInOnePiece) {
  Start();
  const std::vector<int32_t> answer = Ids("4+4=8\n</think>\n\nEight");
  workers_[0]->Answer(answer);
  const std::string thinking = R"("enable_thinking":true)";
  const Json hidden =
      PostJson(kChat, Hi(thinking + R"(,"include_reasoning":false)"));
  EXPECT_TRUE(hidden["choices"][0]["message"]["reasoning_content"].is_null());
  EXPECT_EQ(hidden["choices"][0]["message"]["content"], "Eight");
  EXPECT_GT(hidden["usage"]["completion_tokens_details"]["reasoning_tokens"],
            0);

  const auto events = Events(
      Post(kChat, Hi(thinking + R"(,"stream_reasoning":false,"stream":true)"))
          .body);
  std::vector<std::string> pieces;
  std::string content;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const Json delta = (*ParseJson(event))["choices"][0]["delta"];
    if (delta.contains("reasoning")) pieces.push_back(delta["reasoning"]);
    if (delta.contains("content")) content += delta["content"];
  }
  EXPECT_THAT(pieces, ElementsAre("4+4=8"));
  EXPECT_EQ(content, "Eight");

  // Cut off while it thinks: it is not lost.
  workers_[0]->Answer(Ids("4+4", false));
  const auto cut = Events(
      Post(kChat, Hi(thinking + R"(,"stream_reasoning":false,"stream":true)"))
          .body);
  EXPECT_THAT(cut[cut.size() - 3], HasSubstr(R"("reasoning":"4+4")"));
}

TEST_F(ApiTest, WithoutParallelToolCallsTheSecondOneEndsTheAnswer) {
  Start();
  const std::string body =
      Hi(R"("parallel_tool_calls":false,"tools":[{"type":"function",)"
         R"("function":{"name":"light"}}])");
  auto client = OpenStream(kChat, body);
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  for (const int32_t id :
       Ids("<tool_call>\n{\"name\": \"light\", \"arguments\": {\"on\": true}}\n"
           "</tool_call>\n<tool_call>\n{\"name\": \"light\", \"arguments\": "
           "{\"on\": fal",
           false)) {
    call->Token(id);
  }
  EXPECT_TRUE(call->WaitUntilCancelled(Soon()));
  const Json choice = (*ParseJson(client->ReadReply().body))["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"],
            R"({"on": true})");
  EXPECT_TRUE(choice["stop_reason"].is_null());
}

TEST_F(ApiTest, StopStringsWaitForMinTokens) {
  Start();
  const std::vector<int32_t> answer = Ids("no no no no", false);
  workers_[0]->Answer(answer);
  const auto text = [&](int64_t min_tokens) {
    return PostJson(
               kCompletions,
               absl::StrCat(R"({"prompt":"x","stop":["no"],"max_tokens":99,)",
                            R"("min_tokens":)", min_tokens,
                            "}"))["choices"][0]["text"]
        .get<std::string>();
  };
  EXPECT_EQ(text(0), "");
  // Text of so many tokens is let through.
  const std::string first = tokenizer_->Decode({answer[0]}, true);
  EXPECT_EQ(text(1).substr(0, first.size()), first);
  EXPECT_EQ(text(static_cast<int64_t>(answer.size())), "no no no no");
}

TEST_F(ApiTest, StopExpressionsEndTheAnswerLikeStopStrings) {
  Start();
  workers_[0]->Answer(Ids("one\n\nQ2: two", false));
  const std::string stop = R"("stop_regex":["x+y","\\n+Q\\d+:"])";
  Json choice = PostJson(kChat, Hi(stop))["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "one");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["stop_reason"], "\\n+Q\\d+:");
  choice = PostJson(
      kChat, Hi(stop + R"(,"include_stop_str_in_output":true)"))["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "one\n\nQ2:");

  std::string streamed;
  for (const std::string& event :
       Events(Post(kChat, Hi(stop + R"(,"stream":true)")).body)) {
    if (event == "[DONE]") continue;
    const Json one = (*ParseJson(event))["choices"][0];
    streamed += one["delta"].value("content", "");
    if (one["finish_reason"].is_null()) continue;
    EXPECT_EQ(one["finish_reason"], "stop");
  }
  EXPECT_EQ(streamed, "one");
  // Only behind so many tokens.
  choice = PostJson(kChat, Hi(stop + R"(,"min_tokens":99)"))["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "one\n\nQ2: two");
  EXPECT_TRUE(choice["stop_reason"].is_null());
}

TEST_F(ApiTest, AStopExpressionThatTakesTooLongIsTheRequestsFault) {
  Start();
  workers_[0]->Answer(Ids(std::string(300, 'a'), false));
  const std::string stop = R"("stop_regex":"(a+)+b")";
  EXPECT_THAT(PostError(400, kChat, Hi(stop))["message"].get<std::string>(),
              HasSubstr("stop_regex: the expression (a+)+b"));
  EXPECT_THAT(Post(kChat, Hi(stop + R"(,"stream":true)")).body,
              HasSubstr("takes too many steps"));
}

TEST_F(ApiTest, LongPromptsCanBeTruncatedFromTheLeft) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  PostJson(kCompletions,
           R"({"prompt":[1,2,3,4,5],"truncate_prompt_tokens":2})");
  EXPECT_THAT(workers_[0]->WaitForCall(0, Soon())->request().prompt_ids,
              ElementsAre(4, 5));
  std::string ids = "1";
  for (int i = 0; i < 9000; ++i) ids += ",2";
  PostJson(kCompletions,
           absl::StrCat(R"({"max_tokens":6,"truncate_prompt_tokens":-1,)",
                        R"("prompt":[)", ids, "]}"));
  EXPECT_EQ(workers_[0]->WaitForCall(1, Soon())->request().prompt_ids.size(),
            8192u - 6);
}

TEST_F(ApiTest, TokensCanBeNamedByTheirIds) {
  Start();
  workers_[0]->Answer({5, 6});
  const Json chat = PostJson(
      kChat, Hi(R"("logprobs":true,"return_tokens_as_token_ids":true)"));
  EXPECT_EQ(chat["choices"][0]["logprobs"]["content"][0]["token"],
            "token_id:5");
  const Json text = PostJson(
      kCompletions,
      R"({"prompt":"x","logprobs":0,"return_tokens_as_token_ids":true})");
  EXPECT_EQ(text["choices"][0]["logprobs"]["tokens"][1], "token_id:6");
}

TEST_F(ApiTest, StructuralTagsReachTheWorkerBesideToolsToo) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  const std::string structures =
      R"("response_format":{"type":"structural_tag","structures":[{"begin":)"
      R"("<f>","schema":{},"end":"</f>"}],"triggers":["<f"]})";
  const std::string tools =
      R"(,"tools":[{"type":"function","function":{"name":"light"}}])";
  PostJson(kChat, Hi(structures));
  PostJson(kChat, Hi(structures + tools));
  PostJson(kChat, Hi(R"("structured_outputs":{"structural_tag":)"
                     R"("{\"format\":{\"type\":\"any_text\"}}"})"));
  const auto format = [&](size_t call) {
    return *workers_[0]->WaitForCall(call, Soon())->request().output_format;
  };
  for (const size_t call : {0, 1, 2}) {
    EXPECT_EQ(format(call).kind, OutputFormat::Kind::kStructuralTag);
  }
  EXPECT_EQ((*ParseJson(format(0).text))["triggers"], Json::array({"<f"}));
  EXPECT_EQ(format(1).text, format(0).text);
  EXPECT_EQ(format(2).text, R"({"format":{"type":"any_text"}})");
  // A strict tool is held to its schema: by what, if both say something?
  EXPECT_EQ(PostError(400, kChat,
                      Hi(structures +
                         R"(,"tools":[{"type":"function","function":)"
                         R"({"name":"light","strict":true}}])"))["param"],
            "tools");
  EXPECT_EQ(
      PostError(400, kChat,
                Hi(R"("response_format":{"type":"structural_tag"})"))["param"],
      "response_format");
}

TEST_F(ApiTest, PromptLogprobsAreVllms) {
  Start();
  workers_[0]->Answer({5});
  const auto number = [](float logprob) {
    return static_cast<double>(logprob);
  };
  Json answer = PostJson(kCompletions,
                         R"({"prompt":[[9,8,7],[3]],"n":2,"prompt_logprobs":2,)"
                         R"("logprobs":1})");
  ASSERT_EQ(answer["choices"].size(), 4u);
  const Json& first = answer["choices"][0];
  ASSERT_EQ(first["prompt_logprobs"].size(), 3u);
  EXPECT_TRUE(first["prompt_logprobs"][0].is_null());
  const float eight = testing::FakeLogprob(8, 1);
  EXPECT_EQ(first["prompt_logprobs"][1],
            (Json{{"8",
                   {{"logprob", number(eight)},
                    {"rank", 1},
                    {"decoded_token", tokenizer_->Decode({8}, false)}}},
                  {"1",
                   {{"logprob", number(eight - 1 / 3.0f)},
                    {"rank", 2},
                    {"decoded_token", tokenizer_->Decode({1}, false)}}}}));
  EXPECT_EQ(answer["choices"][1]["prompt_logprobs"], first["prompt_logprobs"]);
  EXPECT_EQ(answer["choices"][3]["prompt_logprobs"], Json::array({nullptr}));
  // Apart from the output's, which come without it.
  EXPECT_EQ(first["logprobs"]["tokens"].size(), 1u);
  EXPECT_EQ(first["logprobs"]["top_logprobs"][0].size(), 1u);
  // Once for all choices of a prompt.
  int asked = 0;
  for (size_t i = 0; i < 4; ++i) {
    const TokenRequest& request =
        workers_[0]->WaitForCall(i, Soon())->request();
    EXPECT_TRUE(request.want_logprobs);
    EXPECT_EQ(request.num_top_logprobs, 2);
    if (request.prompt_logprobs_from) ++asked;
  }
  EXPECT_EQ(asked, 1);

  // Its own alone, with the rank that the worker says.
  answer = PostJson(kChat, Hi(R"("prompt_logprobs":0)"));
  const auto prompt = workers_[0]->WaitForCall(4, Soon())->request().prompt_ids;
  ASSERT_EQ(answer["prompt_logprobs"].size(), prompt.size());
  ASSERT_EQ(answer["prompt_logprobs"][2].size(), 1u);
  EXPECT_EQ(answer["prompt_logprobs"][2][absl::StrCat(prompt[2])]["rank"], 42);
  EXPECT_TRUE(answer["choices"][0]["logprobs"].is_null());
  EXPECT_FALSE(PostJson(kChat, Hi("")).contains("prompt_logprobs"));

  std::string many = "1";
  for (int i = 1; i < 4000; ++i) many += ",1";
  EXPECT_THAT(PostError(400, kCompletions,
                        absl::StrCat(R"({"n":8,"prompt_logprobs":20,)",
                                     R"("prompt":[)", many, "]}"))["message"]
                  .get<std::string>(),
              HasSubstr("672000 logprobs"));
}

// What evaluation harnesses score texts with.
TEST_F(ApiTest, AnEchoedPromptHasLogprobs) {
  Start();
  workers_[0]->Answer({5});
  const Json choice =
      PostJson(kCompletions,
               R"({"prompt":[9,8,7],"echo":true,"logprobs":1,"max_tokens":0})")
          ["choices"][0];
  EXPECT_EQ(choice["text"], tokenizer_->Decode({9, 8, 7}, false));
  EXPECT_EQ(choice["finish_reason"], "length");
  const Json logprobs = choice["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), 3u);
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  EXPECT_EQ(static_cast<float>(logprobs["token_logprobs"][2].get<double>()),
            testing::FakeLogprob(7, 2));
  EXPECT_EQ(logprobs["text_offset"][1], tokenizer_->Decode({9}, false).size());
  // With output behind it, streamed.
  Json names = Json::array();
  for (const std::string& event :
       Events(Post(kCompletions,
                   R"({"prompt":[9,8],"echo":true,"logprobs":0,"stream":true})")
                  .body)) {
    if (event == "[DONE]") continue;
    const Json part = (*ParseJson(event))["choices"][0]["logprobs"];
    if (part.is_null()) continue;
    for (const Json& name : part["tokens"]) names.push_back(name);
  }
  EXPECT_EQ(names.size(), 3u);
}

TEST_F(ApiTest, StrictServersRefuseFieldsThatNobodyKnows) {
  RouterServer::Options options;
  options.strict_fields = true;
  Start(std::move(options));
  EXPECT_EQ(PostError(400, kChat, Hi(R"("max_token":5)"))["param"],
            "max_token");
  EXPECT_EQ(
      PostError(400, kCompletions, R"({"prompt":"x","echos":true})")["param"],
      "echos");
}

}  // namespace
}  // namespace switchyard::router
