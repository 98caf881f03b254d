// SGLang's native endpoints, as its frontend language and benchmarks use them.
//
// The whole router but its workers (api_test_util.h).

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/openai/cache_scope.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/raw_http_connection.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::FakeLogprob;
using ::switchyard::testing::HttpGet;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kGenerate[] = "/generate";

class SglangTest : public ApiTest {};

TEST_F(SglangTest, GeneratesAndSaysHowItEnded) {
  Start();
  const std::vector<int32_t> answer = Ids("Hello there");
  workers_[0]->Answer(answer);
  // Just what the frontend language sends.
  const Json reply =
      PostJson(kGenerate,
               R"({"text":"Hi","sampling_params":{"skip_special_tokens":true,
          "spaces_between_special_tokens":true,"max_new_tokens":64,
          "min_new_tokens":0,"n":1,"stop":[],"stop_token_ids":[],
          "stop_regex":[],"temperature":1.0,"top_p":1.0,"top_k":-1,
          "min_p":0.0,"frequency_penalty":0.0,"presence_penalty":0.0,
          "ignore_eos":false,"regex":null,"json_schema":null}})");
  EXPECT_EQ(reply["text"], "Hello there");
  EXPECT_EQ(reply["output_ids"], Json(answer));
  const Json meta = reply["meta_info"];
  EXPECT_EQ(meta["finish_reason"], Json({{"type", "stop"}, {"matched", kEos}}));
  EXPECT_EQ(meta["prompt_tokens"], Ids("Hi", false).size());
  EXPECT_EQ(meta["completion_tokens"], answer.size());
  EXPECT_EQ(meta["cached_tokens"], 0);
  EXPECT_EQ(meta["weight_version"], "default");
  EXPECT_FALSE(meta["id"].get<std::string>().empty());
  EXPECT_FALSE(meta.contains("output_token_logprobs"));
  const auto& request = workers_[0]->WaitForCall(0, Soon())->request();
  EXPECT_EQ(request.max_tokens, 64);
  // The model's own defaults (greedy, for the demo model) do not count here.
  EXPECT_EQ(request.sampling.temperature, 1.0);
}

TEST_F(SglangTest, DefaultsTo128Tokens) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  PostJson(kGenerate, R"({"text":"Hi"})");
  EXPECT_EQ(workers_[0]->WaitForCall(0, Soon())->request().max_tokens, 128);
}

TEST_F(SglangTest, HoldsTheOutputToAFormat) {
  Start();
  const struct {
    const char* params;
    OutputFormat::Kind kind;
    const char* text;
  } cases[] = {
      {R"({"regex":"[0-9]+"})", OutputFormat::Kind::kRegex, "[0-9]+"},
      {R"({"json_schema":"{\"type\":\"object\"}"})",
       OutputFormat::Kind::kJsonSchema, R"({"type":"object"})"},
      {R"({"ebnf":"root ::= \"a\""})", OutputFormat::Kind::kEbnf,
       "root ::= \"a\""},
      {R"({"structural_tag":"{\"format\":{\"type\":\"any_text\"}}"})",
       OutputFormat::Kind::kStructuralTag, R"({"format":{"type":"any_text"}})"},
  };
  size_t call = 0;
  for (const auto& test : cases) {
    workers_[0]->Answer(Ids("ok"));
    PostJson(kGenerate, absl::StrCat(R"({"text":"Hi","sampling_params":)",
                                     test.params, "}"));
    const auto& format =
        workers_[0]->WaitForCall(call++, Soon())->request().output_format;
    ASSERT_TRUE(format.has_value()) << test.params;
    EXPECT_EQ(format->kind, test.kind);
    EXPECT_EQ(format->text, test.text);
    // The text is what it is: nothing tells a thought from an answer.
    EXPECT_EQ(format->reasoning, OutputFormat::Reasoning::kNone);
  }
}

TEST_F(SglangTest, StopsAtAnExpression) {
  Start();
  workers_[0]->Answer(Ids("Paris is 105 km2", false));
  const auto generate = [&](const std::string& more) {
    return PostJson(kGenerate,
                    absl::StrCat(R"({"text":"Hi","sampling_params":)",
                                 R"({"stop_regex":" \\d+ ")", more, "}}"));
  };
  const Json answer = generate("");
  EXPECT_EQ(answer["text"], "Paris is");
  EXPECT_EQ(answer["meta_info"]["finish_reason"],
            Json({{"type", "stop"}, {"matched", " \\d+ "}}));
  EXPECT_EQ(generate(R"(,"no_stop_trim":true)")["text"], "Paris is 105 ");
}

TEST_F(SglangTest, NoNewTokensMeansPrefillOnly) {
  Start();
  workers_[0]->Answer(Ids("never shown"));
  const Json reply = PostJson(
      kGenerate, R"({"text":"Hi","sampling_params":{"max_new_tokens":0}})");
  EXPECT_EQ(reply["text"], "");
  EXPECT_EQ(reply["output_ids"], Json::array());
  EXPECT_EQ(reply["meta_info"]["completion_tokens"], 0);
  EXPECT_EQ(reply["meta_info"]["finish_reason"],
            Json({{"type", "length"}, {"length", 0}}));
  EXPECT_EQ(workers_[0]->WaitForCall(0, Soon())->request().max_tokens, 1);
}

TEST_F(SglangTest, ABatchIsAnsweredByAListInItsOrder) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  const Json texts = PostJson(kGenerate,
                              R"({"text":["a","b c d"],"rid":["r1","r2"],
          "sampling_params":{"max_new_tokens":4,"temperature":0}})");
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_EQ(texts[0]["meta_info"]["id"], "r1");
  EXPECT_EQ(texts[1]["meta_info"]["id"], "r2");
  EXPECT_EQ(texts[1]["meta_info"]["prompt_tokens"], Ids("b c d", false).size());
  const Json ids = PostJson(kGenerate, R"({"input_ids":[[5,6,7]]})");
  ASSERT_EQ(ids.size(), 1u);  // a batch of one is a list
  EXPECT_THAT(workers_[0]->WaitForCall(2, Soon())->request().prompt_ids,
              ElementsAre(5, 6, 7));
  const Json several =
      PostJson(kGenerate, R"({"input_ids":[5],"sampling_params":{"n":3}})");
  EXPECT_EQ(several.size(), 3u);
}

TEST_F(SglangTest, ExtraKeysKeepPrefixesApart) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  const auto scope = [this](size_t call) {
    return workers_[0]->WaitForCall(call, Soon())->request().cache_scope;
  };
  PostJson(kGenerate, R"({"text":"a"})");
  PostJson(kGenerate, R"({"text":["a","b"],"extra_key":"k"})");
  PostJson(kGenerate, R"({"text":["a","b","c"],"extra_key":["k",null,"l"]})");
  EXPECT_EQ(scope(0), "");
  EXPECT_EQ(scope(1), CacheScope("", "k"));
  EXPECT_EQ(scope(2), CacheScope("", "k"));
  EXPECT_EQ(scope(3), CacheScope("", "k"));
  EXPECT_EQ(scope(4), "");
  EXPECT_EQ(scope(5), CacheScope("", "l"));
  EXPECT_THAT(Post(kGenerate, R"({"text":"a","extra_key":["k","l"]})").body,
              HasSubstr("2 entries for 1 prompts"));
}

TEST_F(SglangTest, StreamsCumulatively) {
  Start();
  const std::vector<int32_t> answer = Ids("one two three");
  workers_[0]->Answer(answer);
  const auto events =
      Events(Post(kGenerate, R"({"text":"x","stream":true})").body);
  ASSERT_EQ(events.back(), "[DONE]");
  std::string text;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const Json event = *ParseJson(events[i]);
    const std::string now = event["text"];
    EXPECT_EQ(now.substr(0, text.size()), text);  // grows
    text = now;
    EXPECT_TRUE(event["meta_info"].contains("finish_reason"));
    EXPECT_EQ(event["meta_info"]["finish_reason"].is_null(),
              i + 2 < events.size());
  }
  EXPECT_EQ(text, "one two three");
  const Json last = *ParseJson(events[events.size() - 2]);
  EXPECT_EQ(last["output_ids"], Json(answer));
  EXPECT_EQ(last["meta_info"]["completion_tokens"], answer.size());
}

TEST_F(SglangTest, LogprobsAreTriples) {
  Start();
  workers_[0]->Answer({5, 6, kEos});
  const Json reply =
      PostJson(kGenerate,
               R"({"input_ids":[9],"return_logprob":true,"top_logprobs_num":2,
          "return_text_in_logprobs":true})");
  const Json meta = reply["meta_info"];
  ASSERT_EQ(meta["output_token_logprobs"].size(), 3u);
  const Json first = meta["output_token_logprobs"][0];
  EXPECT_EQ(static_cast<float>(first[0].get<double>()), FakeLogprob(5, 1));
  EXPECT_EQ(first[1], 5);
  EXPECT_EQ(first[2], tokenizer_->Decode({5}, false));
  EXPECT_EQ(meta["output_top_logprobs"][1].size(), 2u);
  EXPECT_EQ(meta["input_token_logprobs"], Json::array());
  // Without text.
  const Json bare =
      PostJson(kGenerate, R"({"input_ids":[9],"return_logprob":true})");
  EXPECT_TRUE(bare["meta_info"]["output_token_logprobs"][0][2].is_null());
}

// What the frontend language's select() does.
TEST_F(SglangTest, PromptsHaveLogprobsFromWhereTheyAreAskedFor) {
  Start();
  workers_[0]->Answer({5});
  const Json reply =
      PostJson(kGenerate,
               R"({"input_ids":[[9,8,7,6],[9,8]],"return_logprob":true,
          "logprob_start_len":2,"top_logprobs_num":1,
          "sampling_params":{"max_new_tokens":0,"temperature":0}})");
  const Json first = reply[0]["meta_info"]["input_token_logprobs"];
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(static_cast<float>(first[0][0].get<double>()), FakeLogprob(7, 2));
  EXPECT_EQ(first[1][1], 6);
  EXPECT_EQ(reply[0]["meta_info"]["input_top_logprobs"][1].size(), 1u);
  // A prompt that ends before.
  EXPECT_EQ(reply[1]["meta_info"]["input_token_logprobs"], Json::array());
  EXPECT_EQ(reply[1]["meta_info"]["output_token_logprobs"], Json::array());
  // The first token of all has none. Who generates nothing wants all.
  const Json all = PostJson(kGenerate,
                            R"({"input_ids":[9,8],"return_logprob":true,
          "sampling_params":{"max_new_tokens":0}})");
  const Json logprobs = all["meta_info"]["input_token_logprobs"];
  ASSERT_EQ(logprobs.size(), 2u);
  EXPECT_TRUE(logprobs[0][0].is_null());
  EXPECT_EQ(logprobs[0][1], 9);
  EXPECT_EQ(logprobs[1][1], 8);
}

TEST_F(SglangTest, FlushesTheCacheOfEveryWorkerUnlessItIsInUse) {
  Start({}, /*num_workers=*/2);
  EXPECT_EQ(Post("/flush_cache", "").status, 200);
  EXPECT_EQ(HttpGet(server_->port(), "/flush_cache").status, 200);
  EXPECT_EQ(workers_[0]->num_flushes(), 2);
  EXPECT_EQ(workers_[1]->num_flushes(), 2);
  workers_[1]->FailAll(absl::FailedPreconditionError("2 requests run"));
  EXPECT_THAT(PostError(400, "/flush_cache", "")["message"].get<std::string>(),
              HasSubstr("2 requests run"));
  auto client = OpenStream(kGenerate, R"({"text":"x"})");
  ASSERT_NE(workers_[0]->WaitForCall(0, Soon()), nullptr);
  EXPECT_THAT(PostError(400, "/flush_cache", "")["message"].get<std::string>(),
              HasSubstr("1 requests wait or run"));
}

TEST_F(SglangTest, RefusesWithThePathOfWhatIsWrong) {
  Start();
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "text"},
      {R"({"text":"a","input_ids":[1]})", "text"},
      {R"({"text":5})", "text"},
      {R"({"text":[]})", "text"},
      {R"({"input_ids":[]})", "input_ids"},
      {R"({"input_ids":[[1],[99999]]})", "input_ids[1][0]"},
      {R"({"text":"a","sampling_params":{"temperature":"hot"}})",
       "sampling_params.temperature"},
      {R"({"text":["a","b"],"sampling_params":[{"n":1},{"n":2}]})",
       "sampling_params"},
      {R"({"text":"a","image_data":"x"})", "image_data"},
      {R"({"text":"a","sampling_params":{"stop_regex":["x","(y"]}})",
       "sampling_params.stop_regex"},
      {R"({"text":"a","sampling_params":{"structural_tag":"{}"}})",
       "sampling_params.structural_tag"},
      {R"({"text":"a","sampling_params":{"regex":5}})",
       "sampling_params.regex"},
      {R"({"text":"a","sampling_params":{"regex":"a","ebnf":"root ::= \"a\""}})",
       "sampling_params.ebnf"},
      {R"({"text":["a","b"],"rid":["x"]})", "rid"},
  };
  for (const auto& [body, param] : cases) {
    EXPECT_EQ(PostError(400, kGenerate, body)["param"], param) << body;
  }
}

TEST_F(SglangTest, AbortEndsARequestByItsName) {
  Start();
  auto client =
      OpenStream(kGenerate, R"({"text":"x","rid":"mine","stream":false})");
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  const std::vector<int32_t> ids = Ids("one two", false);
  call->Token(ids[0]);
  EXPECT_EQ(PostJson("/abort_request", R"({"rid":"other"})")["aborted"], 0);
  EXPECT_EQ(PostJson("/abort_request", R"({"rid":"mine"})")["aborted"], 1);
  EXPECT_TRUE(call->WaitUntilCancelled(Soon()));
  const Json reply = *ParseJson(client->ReadReply().body);
  EXPECT_EQ(reply["meta_info"]["finish_reason"]["type"], "abort");
  EXPECT_EQ(reply["text"], tokenizer_->Decode({ids[0]}, true));

  // OpenAI's too, all at once.
  auto chat = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto second = workers_[0]->WaitForCall(1, Soon());
  ASSERT_NE(second, nullptr);
  second->Token(ids[0]);
  ASSERT_TRUE(chat->ReadHead().has_value());
  EXPECT_EQ(PostJson("/abort_request", R"({"abort_all":true})")["aborted"], 1);
  EXPECT_TRUE(second->WaitUntilCancelled(Soon()));
  EXPECT_EQ(PostError(400, "/abort_request", "{}")["param"], "rid");
}

TEST_F(SglangTest, TellsAboutModelServerAndLoad) {
  Start();
  AttentionWorkerInfo info = workers_[0]->info();
  info.running_requests = 2;
  info.waiting_requests = 1;
  info.state_bytes_used = 25;
  info.state_bytes_budget = 100;
  info.accepted_length = 2.5;
  workers_[0]->SetInfo(info);
  const auto get = [&](const char* path) {
    const auto reply = HttpGet(server_->port(), path);
    EXPECT_EQ(reply.status, 200) << path;
    return ParseJson(reply.body).value_or(Json());
  };
  const Json model = get("/get_model_info");
  EXPECT_THAT(model["model_path"].get<std::string>(), HasSubstr("demo"));
  EXPECT_EQ(model["is_generation"], true);
  EXPECT_EQ(get("/model_info"), model);
  const Json server = get("/server_info");
  EXPECT_EQ(server["context_length"], 8192);
  EXPECT_TRUE(server.contains("rope_scaling"));
  EXPECT_EQ(server["internal_states"].size(), 1u);
  EXPECT_EQ(server["internal_states"][0]["avg_spec_accept_length"], 2.5);
  for (const char* path : {"/start_profile", "/stop_profile"}) {
    EXPECT_THAT(PostError(404, path, "{}")["message"].get<std::string>(),
                HasSubstr("/metrics"));
    EXPECT_EQ(HttpGet(server_->port(), path).status, 404);
  }
  EXPECT_EQ(get("/get_server_info")["served_model_name"], "demo");
  const Json loads = get("/v1/loads");
  EXPECT_EQ(loads["loads"][0]["num_running_reqs"], 2);
  EXPECT_EQ(loads["loads"][0]["token_usage"], 0.25);
  EXPECT_EQ(loads["aggregate"]["total_reqs"], 3);
  EXPECT_EQ(get("/get_load")[0]["num_waiting_reqs"], 1);
}

TEST_F(SglangTest, HealthGenerateReallyMakesAToken) {
  Start();
  workers_[0]->Answer({5});
  EXPECT_EQ(HttpGet(server_->port(), "/health_generate").status, 200);
  EXPECT_EQ(workers_[0]->num_calls(), 1u);
  workers_[0]->FailAll(absl::InternalError("the disk is on fire"));
  const auto reply = HttpGet(server_->port(), "/health_generate");
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, HasSubstr("on fire"));
}

TEST_F(SglangTest, ParsesTextOfOthers) {
  Start();
  const Json split = PostJson(
      "/separate_reasoning",
      R"({"text":"a\n</think>\n\nb","reasoning_parser":"qwen3-thinking"})");
  EXPECT_EQ(split["reasoning_text"], "a");
  EXPECT_EQ(split["text"], "b");
  EXPECT_EQ(
      PostJson("/separate_reasoning",
               R"({"text":"<think>a</think>b","reasoning_parser":"qwen3"})")
          ["reasoning_text"],
      "a");
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f","parameters":
         {"type":"object","properties":{"n":{"type":"integer"}}}}}])";
  const Json json = PostJson(
      "/parse_function_call",
      absl::StrCat(
          R"({"text":"so <tool_call>{\"name\":\"f\",\"arguments\":{\"n\":1}}</tool_call>",)",
          R"("tool_call_parser":"qwen25",)", tools, "}"));
  EXPECT_EQ(json["normal_text"], "so");
  EXPECT_EQ(json["calls"][0]["name"], "f");
  EXPECT_EQ(json["calls"][0]["tool_index"], 0);
  EXPECT_EQ(json["calls"][0]["parameters"], R"({"n":1})");
  const Json xml = PostJson(
      "/parse_function_call",
      absl::StrCat(
          R"({"text":"<tool_call>\n<function=f>\n<parameter=n>\n7\n</parameter>\n</function>\n</tool_call>",)",
          R"("tool_call_parser":"qwen3_coder",)", tools, "}"));
  EXPECT_EQ(*ParseJson(xml["calls"][0]["parameters"].get<std::string>()),
            Json({{"n", 7}}));
}

TEST_F(SglangTest, TokenizesAndDetokenizes) {
  Start();
  const std::vector<int32_t> ids = Ids("Hello there", false);
  for (const char* path : {"/tokenize", "/v1/tokenize"}) {
    const Json reply = PostJson(path, R"({"prompt":"Hello there"})");
    EXPECT_EQ(reply["tokens"], Json(ids));
    EXPECT_EQ(reply["count"], ids.size());
    EXPECT_EQ(reply["max_model_len"], 8192);
  }
  const Json list = PostJson("/tokenize", R"({"prompt":["Hello there","a"]})");
  EXPECT_EQ(list["tokens"][0], Json(ids));
  EXPECT_EQ(list["count"][1], 1);
  const Json chat = PostJson(
      "/tokenize",
      R"({"messages":[{"role":"user","content":"Hi"}],"return_token_strs":true})");
  EXPECT_EQ(
      tokenizer_->Decode(chat["tokens"].get<std::vector<int32_t>>(), false),
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chat["token_strs"][0], "<|im_start|>");
  EXPECT_EQ(PostJson("/v1/chat/completions/input_tokens", Hi())["input_tokens"],
            chat["count"]);

  const Json back = PostJson(
      "/detokenize", absl::StrCat(R"({"tokens":)", Json(ids).dump(), "}"));
  EXPECT_EQ(back["text"], "Hello there");
  EXPECT_EQ(back["prompt"], "Hello there");
  EXPECT_EQ(
      PostJson("/v1/detokenize", R"({"tokens":[[5],[6]]})")["text"].size(), 2u);
  EXPECT_EQ(PostError(400, "/detokenize", R"({"tokens":[99999]})")["param"],
            "tokens[0]");
  EXPECT_EQ(PostError(400, "/tokenize", "{}")["param"], "prompt");
}

TEST_F(SglangTest, WhatIsNotServedSaysWhatIs) {
  Start();
  for (const char* path : {"/v1/embeddings", "/v1/audio/speech", "/v1/rerank",
                           "/concate_and_append_request"}) {
    EXPECT_THAT(PostError(404, path, "{}")["message"].get<std::string>(),
                HasSubstr("/v1/chat/completions"));
  }
}

}  // namespace
}  // namespace switchyard::router
