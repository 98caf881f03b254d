#include "router/openai/request.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/openai/cache_scope.h"
#include "router/openai/errors.h"
#include "tests/testing/matchers.h"

namespace switchyard::router {
namespace {

using switchyard::testing::IsOk;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;

RequestDefaults Defaults() {
  RequestDefaults defaults;
  defaults.generation.temperature = 0.7;
  defaults.generation.top_p = 0.8;
  defaults.generation.top_k = 20;
  defaults.vocab_size = 1000;
  defaults.max_choices = 8;
  return defaults;
}

absl::StatusOr<ChatRequest> Chat(const std::string& json) {
  return ParseChatRequest(*ParseJson(json), Defaults());
}
absl::StatusOr<CompletionRequest> Completion(const std::string& json) {
  return ParseCompletionRequest(*ParseJson(json), Defaults());
}

// A chat request with one user message and these fields.
std::string With(const std::string& fields) {
  return absl::StrCat(R"({"messages":[{"role":"user","content":"hi"}])",
                      fields.empty() ? "" : ",", fields, "}");
}

TEST(ChatRequestTest, SaltsAndKeysAreScopes) {
  const auto scopes = [](const std::string& fields) {
    const auto request = Chat(With(fields));
    EXPECT_THAT(request, IsOk()) << fields;
    return request->params.cache_scopes;
  };
  EXPECT_THAT(scopes(""), ElementsAre());
  EXPECT_THAT(scopes(R"("cache_salt":null,"extra_key":[])"), ElementsAre());
  EXPECT_THAT(scopes(R"("extra_key":"")"), ElementsAre(""));
  // Others' salts and keys, and a salt and a key, are other scopes.
  std::set<std::string> all = {""};
  for (const char* fields :
       {R"("cache_salt":"x")", R"("cache_salt":"y")", R"("extra_key":"x")",
        R"("cache_salt":"x","extra_key":"x")", R"("cache_salt":"xx")",
        R"("cache_salt":"x1","extra_key":"x")"}) {
    const auto got = scopes(fields);
    ASSERT_THAT(got, SizeIs(1)) << fields;
    EXPECT_EQ(got[0].size(), 64u);
    EXPECT_THAT(got[0], Not(HasSubstr("x")));  // hex digits
    EXPECT_TRUE(all.insert(got[0]).second) << fields;
    EXPECT_EQ(scopes(fields), got);
  }
  // For good: files of other builds are named by it.
  EXPECT_EQ(CacheScope("salt", ""),
            "af18eb967bbfacf1ccaf05cde738814a"
            "a5b6e3de9129d505857be3066c0906eb");
}

TEST(CompletionRequestTest, EveryPromptMayHaveItsScope) {
  const auto each =
      Completion(R"({"prompt":["a","b","c"],"cache_salt":["x",null,"y"]})");
  ASSERT_THAT(each, IsOk());
  EXPECT_THAT(each->params.cache_scopes,
              ElementsAre(CacheScope("x", ""), "", CacheScope("y", "")));
  const auto same =
      Completion(R"({"prompt":["a","b"],"cache_salt":"x","extra_key":"k"})");
  ASSERT_THAT(same, IsOk());
  EXPECT_THAT(same->params.cache_scopes,
              ElementsAre(CacheScope("x", "k"), CacheScope("x", "k")));
}

TEST(ChatRequestTest, TakesTheModelsDefaults) {
  const auto request = Chat(With(""));
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->params.sampling.temperature, 0.7);
  EXPECT_EQ(request->params.sampling.top_p, 0.8);
  EXPECT_EQ(request->params.sampling.top_k, 20);
  EXPECT_FALSE(request->params.has_seed);
  EXPECT_FALSE(request->params.max_tokens.has_value());
  EXPECT_FALSE(request->parse_tool_calls);
  EXPECT_EQ(request->prompt.kwargs.dump(), R"({"add_generation_prompt":true})");

  RequestDefaults greedy = Defaults();
  greedy.generation.do_sample = false;
  EXPECT_EQ(ParseChatRequest(*ParseJson(With("")), greedy)
                ->params.sampling.temperature,
            0);
}

TEST(ChatRequestTest, NullIsAbsentAndUnknownFieldsAreIgnored) {
  const auto request = Chat(With(
      R"("temperature":null,"max_tokens":null,"stop":null,"tools":null,
         "seed":null,"stream":null,"stream_options":null,"logit_bias":null,
         "response_format":null,"tool_choice":null,"chat_template_kwargs":null,
         "user":"x","metadata":{},"store":true,"new_thing":[1,2])"));
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->params.sampling.temperature, 0.7);
}

TEST(ChatRequestTest, ReadsParameters) {
  const auto request = Chat(With(
      R"("temperature":0,"top_p":1,"top_k":-1,"min_p":0.1,"seed":-3,
         "presence_penalty":-2,"frequency_penalty":2,"repetition_penalty":1.1,
         "max_tokens":5,"max_completion_tokens":7.0,"n":2,"stop":"END",
         "stop_token_ids":[1,999],"ignore_eos":true,"stream":true,
         "stream_options":{"include_usage":true},"logprobs":true,
         "top_logprobs":20,"return_token_ids":true,"timeout":1.5,
         "skip_special_tokens":false,"enable_thinking":true,
         "priority":-3,"user":"me",
         "chat_template_kwargs":{"other":1})"));
  ASSERT_THAT(request, IsOk());
  const GenerationParams& params = request->params;
  EXPECT_EQ(params.priority, -3);
  EXPECT_EQ(params.client, "me");
  EXPECT_EQ(params.sampling.temperature, 0);
  EXPECT_EQ(params.sampling.top_k, 0);
  EXPECT_EQ(params.sampling.seed, static_cast<uint64_t>(int64_t{-3}));
  EXPECT_TRUE(params.has_seed);
  EXPECT_EQ(params.sampling.repetition_penalty, 1.1);
  EXPECT_EQ(params.max_tokens, 7);  // the newer name wins
  EXPECT_EQ(params.n, 2);
  EXPECT_THAT(params.stop, ElementsAre("END"));
  EXPECT_THAT(params.stop_token_ids, ElementsAre(1, 999));
  EXPECT_TRUE(params.ignore_eos);
  EXPECT_TRUE(params.include_usage);
  EXPECT_TRUE(params.logprobs);
  EXPECT_EQ(params.top_logprobs, 20);
  EXPECT_TRUE(params.return_token_ids);
  EXPECT_EQ(params.timeout, absl::Milliseconds(1500));
  EXPECT_FALSE(params.skip_special_tokens);
  EXPECT_EQ(request->prompt.kwargs["enable_thinking"], true);
  EXPECT_EQ(request->prompt.kwargs["other"], 1);
}

TEST(ChatRequestTest, ReadsRulesAboutTokens) {
  const auto request = Chat(With(
      R"("logit_bias":{"7":-100,"5":1.5},"allowed_token_ids":[5,7],
         "min_tokens":3,"no_stop_trim":true,"parallel_tool_calls":false,
         "return_tokens_as_token_ids":true,"truncate_prompt_tokens":-1,
         "include_reasoning":false)"));
  ASSERT_THAT(request, IsOk());
  const GenerationParams& params = request->params;
  EXPECT_THAT(params.sampling.logit_bias,
              ElementsAre(Pair(5, 1.5f), Pair(7, -100.0f)));
  EXPECT_THAT(params.sampling.allowed_token_ids, ElementsAre(5, 7));
  EXPECT_EQ(params.sampling.min_tokens, 3);
  EXPECT_TRUE(params.include_stop_str_in_output);
  EXPECT_FALSE(request->parallel_tool_calls);
  EXPECT_TRUE(params.tokens_as_ids);
  EXPECT_EQ(params.truncate_prompt_tokens, -1);
  EXPECT_EQ(params.reasoning, ReasoningOutput::kHidden);
}

TEST(ChatRequestTest, ReadsHowMuchReasoningIsWanted) {
  EXPECT_FALSE(Chat(With(""))->thinking_budget.has_value());
  for (const char* field :
       {R"("thinking_budget":9)", R"("thinking_token_budget":9)",
        R"("reasoning_budget_tokens":9)",
        R"("chat_template_kwargs":{"thinking_budget":9})"}) {
    EXPECT_EQ(Chat(With(field))->thinking_budget, 9) << field;
  }
  EXPECT_FALSE(
      Chat(With(R"("thinking_budget":-1)"))->thinking_budget.has_value());
  EXPECT_EQ(Chat(With(R"("reasoning_effort":"none")"))
                ->prompt.kwargs["enable_thinking"],
            false);
  EXPECT_EQ(Chat(With(R"("reasoning_effort":"low")"))
                ->prompt.kwargs["enable_thinking"],
            true);
  // What the template is told counts more.
  EXPECT_EQ(Chat(With(R"("reasoning_effort":"low","enable_thinking":false)"))
                ->prompt.kwargs["enable_thinking"],
            false);
}

TEST(ChatRequestTest, StrictModeRefusesUnknownFieldsOnly) {
  RequestDefaults strict = Defaults();
  strict.strict = true;
  const auto parse = [&](const std::string& fields) {
    return ParseChatRequest(*ParseJson(With(fields)), strict).status();
  };
  EXPECT_THAT(
      parse(
          R"("model":"m","user":"u","store":true,"metadata":{},"top_k":4,
             "logprobs":null,"response_format":null,"thinking_budget":3,
             "tools":[],"tool_choice":"auto","stream_options":null,"n":1)"),
      IsOk());
  const absl::Status status = parse(R"("temprature":1)");
  EXPECT_EQ(ToApiError(status).param, "temprature");
  EXPECT_THAT(std::string(status.message()), HasSubstr("temperature?"));
  EXPECT_THAT(Chat(With(R"("temprature":1)")), IsOk());
}

TEST(ChatRequestTest, ReadsTheLargestSeed) {
  EXPECT_EQ(Chat(With(R"("seed":18446744073709551615)"))->params.sampling.seed,
            UINT64_MAX);
}

TEST(ChatRequestTest, ToolsAreParsedUnlessTheyMustNotBeCalled) {
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f"}}])";
  EXPECT_TRUE(Chat(With(tools))->parse_tool_calls);
  EXPECT_TRUE(Chat(With(tools + R"(,"tool_choice":"auto")"))->parse_tool_calls);
  const auto none = Chat(With(tools + R"(,"tool_choice":"none")"));
  EXPECT_FALSE(none->parse_tool_calls);
  EXPECT_TRUE(none->prompt.tools.is_null());
  EXPECT_FALSE(Chat(With(R"("tools":[])"))->parse_tool_calls);
}

TEST(ChatRequestTest, NormalisesTheDialectsOfMessages) {
  const auto request = Chat(R"({"messages":[
    {"role":"developer","content":"be brief","name":null},
    {"role":"user","content":[{"type":"text","text":"a"},"b"]},
    {"role":"assistant","content":null,"reasoning":"hm","tool_calls":[
      {"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}},
      {"id":"2","type":"function","function":{"name":"g","arguments":{"y":2}}},
      {"id":"3","type":"function","function":{"name":"h","arguments":"{\"cut"}}]},
    {"role":"tool","id":"1","content":"ok","extra":3},
    {"role":"system","content":"late"},
    {"role":"assistant"}]})");
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(
      request->prompt.messages.dump(),
      R"([{"role":"system","content":"be brief"},)"
      R"({"role":"user","content":"a\nb"},)"
      R"({"role":"assistant","content":"","reasoning":"hm","tool_calls":[)"
      R"({"id":"1","type":"function","function":{"name":"f","arguments":{"x":1}}},)"
      R"({"id":"2","type":"function","function":{"name":"g","arguments":{"y":2}}},)"
      R"({"id":"3","type":"function","function":{"name":"h","arguments":"{\"cut"}}],)"
      R"("reasoning_content":"hm"},)"
      R"({"role":"tool","content":"ok","id":"1","extra":3},)"
      R"({"role":"system","content":"late"},)"
      R"({"role":"assistant","content":""}])");
}

TEST(ChatRequestTest, AVolatileBillingHeaderDoesNotSpoilThePrefix) {
  const auto system = [](const std::string& role, const std::string& hash) {
    const auto request = Chat(absl::StrCat(
        R"({"messages":[{"role":")", role,
        R"(","content":"x-anthropic-billing-header: cc_version=2; cch=)", hash,
        R"(;\nYou are an agent; cch=kept"},{"role":"user","content":"hi"}]})"));
    return request->prompt.messages[0]["content"].get<std::string>();
  };
  EXPECT_EQ(system("system", "1a2b3"),
            "x-anthropic-billing-header: cc_version=2; cch=0;\nYou are an "
            "agent; cch=kept");
  EXPECT_EQ(system("system", "1a2b3"), system("developer", "ffff"));
  EXPECT_NE(system("user", "1a2b3"), system("user", "ffff"));
}

struct BadCase {
  std::string json;
  std::string param;
};

TEST(ChatRequestTest, RefusesWithThePathOfWhatIsWrong) {
  const BadCase cases[] = {
      {R"([])", ""},
      {R"(null)", ""},
      {R"({})", "messages"},
      {R"({"messages":null})", "messages"},
      {R"({"messages":"x"})", "messages"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":[3]})", "messages[0]"},
      {R"({"messages":[{"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"king","content":""}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"user","content":{"a":1}}]})",
       "messages[1].content"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})",
       "messages[0].content[0].type"},
      {R"({"messages":[{"role":"user","content":[{"type":"text","text":1}]}]})",
       "messages[0].content[0].text"},
      {R"({"messages":[{"role":"assistant","tool_calls":{}}]})",
       "messages[0].tool_calls"},
      {R"({"messages":[{"role":"assistant","tool_calls":[{"function":{}}]}]})",
       "messages[0].tool_calls[0].function.name"},
      {R"({"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":3}}]}]})",
       "messages[0].tool_calls[0].function.arguments"},
      {R"({"messages":[{"role":"assistant","reasoning_content":1}]})",
       "messages[0].reasoning_content"},
      {With(R"("temperature":"hot")"), "temperature"},
      {With(R"("temperature":-1)"), "temperature"},
      {With(R"("top_p":7)"), "top_p"},
      {With(R"("top_p":0)"), "top_p"},
      {With(R"("top_k":1.5)"), "top_k"},
      {With(R"("max_tokens":-1)"), "max_tokens"},
      {With(R"("max_tokens":0)"), "max_tokens"},
      {With(R"("max_tokens":123456789012345678901234567890)"), "max_tokens"},
      {With(R"("max_tokens":1e300)"), "max_tokens"},
      {With(R"("max_completion_tokens":true)"), "max_completion_tokens"},
      {With(R"("n":0)"), "n"},
      {With(R"("n":9)"), "n"},
      {With(R"("best_of":3)"), "best_of"},
      {With(R"("seed":"x")"), "seed"},
      {With(R"("stop":5)"), "stop"},
      {With(R"("stop":[1])"), "stop"},
      {With(R"("stop_regex":5)"), "stop_regex"},
      {With(R"("stop_regex":["a","b("])"), "stop_regex"},
      {With(R"("prompt_logprobs":-1)"), "prompt_logprobs"},
      {With(R"("prompt_logprobs":21)"), "prompt_logprobs"},
      {With(R"("prompt_logprobs":1,"stream":true)"), "prompt_logprobs"},
      {With(R"("stop_token_ids":[1000])"), "stop_token_ids[0]"},
      {With(R"("stop_token_ids":[0,-1])"), "stop_token_ids[1]"},
      {With(R"("priority":"high")"), "priority"},
      {With(absl::StrCat("\"user\":\"", std::string(513, 'u'), "\"")), "user"},
      {With(R"("stream":1)"), "stream"},
      {With(R"("stream_options":[])"), "stream_options"},
      {With(R"("stream_options":{"include_usage":3})"),
       "stream_options.include_usage"},
      {With(R"("top_logprobs":2)"), "top_logprobs"},
      {With(R"("logprobs":true,"top_logprobs":21)"), "top_logprobs"},
      {With(R"("logprobs":5)"), "logprobs"},
      {With(R"("tools":{})"), "tools"},
      {With(R"("tools":[{"type":"retrieval"}])"), "tools[0].type"},
      {With(R"("tools":[{"type":"function","function":{"name":1}}])"),
       "tools[0].function.name"},
      {With(R"("tool_choice":"required")"), "tool_choice"},
      {With(R"("logit_bias":[5])"), "logit_bias"},
      {With(R"("logit_bias":{"x":1})"), "logit_bias.x"},
      {With(R"("logit_bias":{"1000":1})"), "logit_bias.1000"},
      {With(R"("logit_bias":{"5":101})"), "logit_bias.5"},
      {With(R"("logit_bias":{"5":"1"})"), "logit_bias.5"},
      {With(R"("logit_bias":{"5":1,"05":2})"), "logit_bias"},
      {With(R"("allowed_token_ids":[1,1000])"), "allowed_token_ids[1]"},
      {With(R"("allowed_token_ids":{})"), "allowed_token_ids"},
      {With(R"("min_tokens":-1)"), "min_tokens"},
      {With(R"("truncate_prompt_tokens":0)"), "truncate_prompt_tokens"},
      {With(R"("thinking_budget":"many")"), "thinking_budget"},
      {With(R"("chat_template_kwargs":{"thinking_budget":"many"})"),
       "chat_template_kwargs.thinking_budget"},
      {With(R"("cache_salt":"")"), "cache_salt"},
      {With(R"("cache_salt":5)"), "cache_salt"},
      {With(R"("cache_salt":["x","y"])"), "cache_salt"},
      {With(R"("cache_salt":["x",5])"), "cache_salt"},
      {With(R"("extra_key":[5])"), "extra_key[0]"},
      {With(absl::StrCat("\"extra_key\":\"", std::string(4097, 'k'), "\"")),
       "extra_key"},
      {With(R"("response_format":{"type":"xml"})"), "response_format.type"},
      {With(R"("response_format":{"type":"json_schema"})"),
       "response_format.json_schema"},
      {With(R"("response_format":"json")"), "response_format"},
      {With(R"("regex":5)"), "regex"},
      {With(R"("regex":"a","guided_json":{})"), "regex"},
      {With(R"("guided_choice":["a",1])"), "guided_choice"},
      {With(R"("structured_outputs":{"structural_tag":"x"})"),
       "structured_outputs.structural_tag"},
      {With(R"("tool_choice":"always")"), "tool_choice"},
      {With(R"("tools":[{"type":"function","function":{"name":"f"}}],)"
            R"("tool_choice":{"type":"function","function":{"name":"g"}})"),
       "tool_choice"},
      {With(R"("chat_template_kwargs":[])"), "chat_template_kwargs"},
      {With(R"("chat_template_kwargs":{"enable_thinking":"yes"})"),
       "chat_template_kwargs.enable_thinking"},
      {With(R"("enable_thinking":1)"), "enable_thinking"},
      {With(R"("continue_final_message":true,"add_generation_prompt":true)"),
       "continue_final_message"},
      {With(R"("timeout":0)"), "timeout"},
      {With(R"("model":5)"), "model"},
  };
  for (const BadCase& bad : cases) {
    const auto request = Chat(bad.json);
    ASSERT_FALSE(request.ok()) << bad.json;
    const ApiError error = ToApiError(request.status());
    EXPECT_EQ(error.http_status, 400) << bad.json;
    EXPECT_EQ(error.param, bad.param) << bad.json;
    EXPECT_EQ(error.type, "invalid_request_error");
    EXPECT_FALSE(error.message.empty());
  }
}

TEST(CompletionRequestTest, TakesTextIdsAndListsOfEither) {
  EXPECT_EQ(std::get<std::string>(Completion(R"({"prompt":"a"})")->prompts[0]),
            "a");
  EXPECT_THAT(std::get<std::vector<int32_t>>(
                  Completion(R"({"prompt":[1,2]})")->prompts[0]),
              ElementsAre(1, 2));
  const auto list = Completion(R"({"prompt":["a",[3],"b"]})");
  ASSERT_THAT(list, IsOk());
  ASSERT_EQ(list->prompts.size(), 3u);
  EXPECT_THAT(std::get<std::vector<int32_t>>(list->prompts[1]), ElementsAre(3));
  EXPECT_EQ(list->params.max_tokens, 16);  // OpenAI's default
  EXPECT_EQ(Completion(R"({"prompt":"a","logprobs":0})")->params.logprobs,
            true);
}

TEST(CompletionRequestTest, RefusesWithThePathOfWhatIsWrong) {
  const BadCase cases[] = {
      {R"({})", "prompt"},
      {R"({"prompt":[]})", "prompt"},
      {R"({"prompt":{}})", "prompt"},
      {R"({"prompt":5})", "prompt"},
      {R"({"prompt":[1000]})", "prompt[0]"},
      {R"({"prompt":[1,-1]})", "prompt[1]"},
      {R"({"prompt":[1099511627776]})", "prompt[0]"},
      {R"({"prompt":[18446744073709551615]})", "prompt[0]"},
      {R"({"prompt":[123456789012345678901234567890]})", "prompt[0]"},
      {R"({"prompt":[1.5]})", "prompt[0]"},
      {R"({"prompt":[1,"a"]})", "prompt[1]"},
      {R"({"prompt":["a",null]})", "prompt[1]"},
      {R"({"prompt":["a","b","c"],"n":3})", "prompt"},
      {R"({"prompt":"a","logprobs":21})", "logprobs"},
      {R"({"prompt":"a","max_tokens":0})", "max_tokens"},
      {R"({"prompt":"a","suffix":"b"})", "suffix"},
  };
  for (const BadCase& bad : cases) {
    const auto request = Completion(bad.json);
    ASSERT_FALSE(request.ok()) << bad.json;
    EXPECT_EQ(ToApiError(request.status()).param, bad.param) << bad.json;
  }
}

}  // namespace
}  // namespace switchyard::router
