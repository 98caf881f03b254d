// What a client gets: whole and streamed, tools, reasoning, logprobs, several
// choices.
//
// The whole router but its workers (api_test_util.h).

#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/openai/generation.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::FakeLogprob;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

TEST_F(ApiTest, ChatAnswersWhole) {
  Start();
  const std::vector<int32_t> answer = Ids("Hello there");
  workers_[0]->Answer(answer);
  const Json reply = PostJson(kChat, Hi());
  const auto call = workers_[0]->WaitForCall(0, Soon());
  const size_t prompt = call->request().prompt_ids.size();
  EXPECT_EQ(
      reply.dump(),
      absl::StrCat(
          R"({"id":"chatcmpl-)", reply["id"].get<std::string>().substr(9),
          R"(","object":"chat.completion","created":1735689600,"model":"demo",)"
          R"("system_fingerprint":"switchyard-0.1.0-0123456789ab",)"
          R"("choices":[{"index":0,"message":{"role":"assistant",)"
          R"("content":"Hello there","refusal":null,"reasoning_content":null,)"
          R"("reasoning":null},"logprobs":null,"finish_reason":"stop",)"
          R"("stop_reason":null,"matched_stop":)",
          kEos, R"(}],"usage":{"prompt_tokens":)", prompt,
          R"(,"completion_tokens":)", answer.size(), R"(,"total_tokens":)",
          prompt + answer.size(),
          R"(,"prompt_tokens_details":{"cached_tokens":0},)"
          R"("completion_tokens_details":{"reasoning_tokens":0}}})"));
  // The prompt is the template's, and greedy is the demo model's default.
  EXPECT_EQ(tokenizer_->Decode(call->request().prompt_ids, false),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(call->request().sampling.temperature, 0);
  EXPECT_THAT(call->request().stop_token_ids,
              ::testing::ElementsAre(1529, 1527));
  EXPECT_EQ(call->request().max_tokens, 8192 - static_cast<int64_t>(prompt));
}

TEST_F(ApiTest, ChatStreamsByteForByte) {
  Start();
  const int32_t h = Ids("H", /*eos=*/false)[0];
  workers_[0]->Answer({h, h, kEos});
  auto client = OpenStream(
      kChat, Hi(R"("stream":true,"stream_options":{"include_usage":true})"));
  const auto head = client->ReadHead();
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(head->Get("Content-Type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(head->Get("Cache-Control"), "no-cache");
  EXPECT_EQ(head->Get("X-Accel-Buffering"), "no");
  EXPECT_EQ(head->Get("Transfer-Encoding"), "chunked");
  EXPECT_NE(head->Get("x-request-id"), "");
  const std::string body = client->ReadBody(*head);
  const std::string id = (*ParseJson(Events(body)[0]))["id"].get<std::string>();
  const std::string prefix = absl::StrCat(
      R"(data: {"id":")", id,
      R"(","object":"chat.completion.chunk","created":1735689600,)"
      R"("model":"demo","system_fingerprint":"switchyard-0.1.0-0123456789ab",)");
  const auto prompt = workers_[0]->WaitForCall(0, Soon())->request().prompt_ids;
  EXPECT_EQ(
      body,
      absl::StrCat(
          prefix,
          R"("choices":[{"index":0,"delta":{"role":"assistant","content":"H"},)"
          R"("logprobs":null,"finish_reason":null}],"usage":null})",
          "\n\n", prefix,
          R"("choices":[{"index":0,"delta":{"content":"H"},)"
          R"("logprobs":null,"finish_reason":null}],"usage":null})",
          "\n\n", prefix,
          R"("choices":[{"index":0,"delta":{},"logprobs":null,)"
          R"("finish_reason":"stop","stop_reason":null,"matched_stop":)",
          kEos, R"(}],"usage":null})", "\n\n", prefix,
          R"("choices":[],"usage":{"prompt_tokens":)", prompt.size(),
          R"(,"completion_tokens":3,"total_tokens":)", prompt.size() + 3,
          R"(,"prompt_tokens_details":{"cached_tokens":0},)"
          R"("completion_tokens_details":{"reasoning_tokens":0}}})",
          "\n\ndata: [DONE]\n\n"));
}

TEST_F(ApiTest, TokensReachTheClientOneByOne) {
  Start();
  auto client = OpenStream(kCompletions,
                           R"({"prompt":"x","stream":true,"max_tokens":9})");
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  const std::vector<int32_t> ids = Ids("one two three", false);
  call->Token(ids[0]);
  ASSERT_TRUE(client->ReadHead().has_value());
  std::string text = StreamedContent(Events(*client->ReadChunk()));
  for (size_t i = 1; i < ids.size(); ++i) {
    call->Token(ids[i]);
    text += StreamedContent(Events(*client->ReadChunk()));
  }
  EXPECT_EQ(text, "one two three");
  call->Done(absl::OkStatus(), TokenFinish::kLength);
  EXPECT_EQ((*ParseJson(Events(
                *client->ReadChunk())[0]))["choices"][0]["finish_reason"],
            "length");
  EXPECT_EQ(*client->ReadChunk(), "data: [DONE]\n\n");
  EXPECT_EQ(client->ReadChunk(), absl::nullopt);
}

TEST_F(ApiTest, StopStringEndsTheAnswerAndTheWorkersRequest) {
  Start();
  for (const bool stream : {false, true}) {
    const size_t index = workers_[0]->num_calls();
    auto client =
        OpenStream(kChat, Hi(absl::StrCat(R"("stop":["City"],"stream":)",
                                          stream ? "true" : "false")));
    const auto call = workers_[0]->WaitForCall(index, Soon());
    ASSERT_NE(call, nullptr);
    // Nothing ends the request but the router itself.
    for (const int32_t id : Ids("Mexico City is large", false)) call->Token(id);
    EXPECT_TRUE(call->WaitUntilCancelled(Soon()));
    const auto reply = client->ReadReply();
    EXPECT_EQ(reply.status, 200);
    if (stream) {
      const auto events = Events(reply.body);
      EXPECT_EQ(StreamedContent(events), "Mexico ");
      EXPECT_THAT(events[events.size() - 2],
                  HasSubstr(R"("finish_reason":"stop","stop_reason":"City",)"
                            R"("matched_stop":"City")"));
    } else {
      const Json choice = (*ParseJson(reply.body))["choices"][0];
      EXPECT_EQ(choice["message"]["content"], "Mexico ");
      EXPECT_EQ(choice["finish_reason"], "stop");
      EXPECT_EQ(choice["stop_reason"], "City");
      EXPECT_EQ(choice["matched_stop"], "City");
    }
  }
}

constexpr char kTools[] =
    R"("tools":[{"type":"function","function":{"name":"light","parameters":)"
    R"({"type":"object","properties":{"on":{"type":"boolean"}}}}}])";
constexpr char kCallText[] =
    "<tool_call>\n{\"name\": \"light\", \"arguments\": {\"on\": true}}\n"
    "</tool_call>";

TEST_F(ApiTest, ToolCallsAreParsedOnlyForRequestsWithTools) {
  Start();
  workers_[0]->Answer(Ids(kCallText));
  const Json with = PostJson(kChat, Hi(kTools))["choices"][0];
  EXPECT_EQ(with["finish_reason"], "tool_calls");
  EXPECT_TRUE(with["message"]["content"].is_null());
  ASSERT_EQ(with["message"]["tool_calls"].size(), 1u);
  const Json call = with["message"]["tool_calls"][0];
  EXPECT_THAT(call["id"].get<std::string>(),
              MatchesRegex("call_[0-9a-f]+_0_0"));
  EXPECT_EQ(call["function"]["name"], "light");
  EXPECT_EQ(*ParseJson(call["function"]["arguments"].get<std::string>()),
            Json({{"on", true}}));

  const Json without = PostJson(kChat, Hi())["choices"][0];
  EXPECT_EQ(without["finish_reason"], "stop");
  EXPECT_EQ(without["message"]["content"], kCallText);
  EXPECT_FALSE(without["message"].contains("tool_calls"));
}

TEST_F(ApiTest, StreamedToolCallsNameThemselvesOnce) {
  Start();
  workers_[0]->Answer(Ids(kCallText));
  const auto reply = Post(kChat, Hi(absl::StrCat(kTools, R"(,"stream":true)")));
  std::string name, arguments, finish;
  int names = 0, ids = 0;
  for (const std::string& event : Events(reply.body)) {
    if (event == "[DONE]") continue;
    const Json choice = (*ParseJson(event))["choices"][0];
    if (choice["finish_reason"].is_string()) finish = choice["finish_reason"];
    if (!choice["delta"].contains("tool_calls")) continue;
    for (const Json& call : choice["delta"]["tool_calls"]) {
      EXPECT_EQ(call["index"], 0);
      ids += call.contains("id");
      if (call["function"].contains("name")) {
        ++names;
        name = call["function"]["name"];
      }
      arguments += call["function"]["arguments"].get<std::string>();
    }
  }
  EXPECT_EQ(names, 1);
  EXPECT_EQ(ids, 1);
  EXPECT_EQ(name, "light");
  EXPECT_EQ(*ParseJson(arguments), Json({{"on", true}}));
  EXPECT_EQ(finish, "tool_calls");
}

// Cut off by the limit or by a stop string, a call is as far as it came: the
// same whole and streamed, and nobody is told to run it.
TEST_F(ApiTest, CallsThatAreCutOffAreNotClosed) {
  Start();
  const std::string text = kCallText;
  const std::string cut = text.substr(0, text.find("true") + 2);
  struct Case {
    std::string text;
    bool ended;
    const char* more;
    const char* finish_reason;
    const char* arguments;
  };
  for (const Case& c :
       {Case{cut, false, "", "length", "{\"on\": tr"},
        Case{text, true, R"("stop":["rue"],)", "stop", "{\"on\": t"},
        Case{text.substr(0, text.find("arg")), false, "", "length", ""},
        Case{text.substr(0, text.find("</")), false, "", "length",
             "{\"on\": true}"},
        // The model's own end is mended.
        Case{cut, true, "", "tool_calls", "{\"on\": true}"}}) {
    SCOPED_TRACE(c.text + c.more);
    const std::vector<int32_t> answer = Ids(c.text, c.ended);
    workers_[0]->Answer(answer);
    const std::string limit =
        absl::StrCat(R"("max_tokens":)", c.ended ? 99 : answer.size(), ",");
    const Json choice =
        PostJson(kChat, Hi(absl::StrCat(limit, c.more, kTools)))["choices"][0];
    EXPECT_EQ(choice["finish_reason"], c.finish_reason);
    EXPECT_TRUE(choice["message"]["content"].is_null());
    ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u);
    const Json& function = choice["message"]["tool_calls"][0]["function"];
    EXPECT_EQ(function["name"], "light");
    EXPECT_EQ(function["arguments"], c.arguments);

    std::string name, arguments, finish_reason;
    for (const std::string& event : Events(
             Post(kChat,
                  Hi(absl::StrCat(limit, c.more, R"("stream":true,)", kTools)))
                 .body)) {
      if (event == "[DONE]") continue;
      const Json chunk = (*ParseJson(event))["choices"][0];
      if (chunk["finish_reason"].is_string()) {
        finish_reason = chunk["finish_reason"];
      }
      for (const Json& call :
           chunk["delta"].value("tool_calls", Json::array())) {
        name += call["function"].value("name", "");
        arguments += call["function"].value("arguments", "");
      }
    }
    EXPECT_EQ(name, "light");
    EXPECT_EQ(arguments, c.arguments);
    EXPECT_EQ(finish_reason, c.finish_reason);
  }
}

// What came back cut off may be sent back, also where the template takes
// arguments apart.
TEST_F(ApiTest, AHistoryWithACutOffCallIsServed) {
  RouterServer::Options options;
  options.chat_format = ChatFormat::kCoder;
  Start(std::move(options));
  workers_[0]->Answer(Ids("ok"));
  const auto history = [](const std::string& arguments) {
    return absl::StrCat(
        R"({"messages":[{"role":"user","content":"Hi"},{"role":"assistant",)"
        R"("tool_calls":[{"type":"function","function":{"name":"light",)"
        R"("arguments":)",
        Json(arguments).dump(), R"(}}]},{"role":"user","content":"Go on"}]})");
  };
  PostJson(kChat, history(R"({"room": "kitch)"));
  EXPECT_THAT(
      tokenizer_->Decode(
          workers_[0]->WaitForCall(0, Soon())->request().prompt_ids, false),
      HasSubstr("<function=light>\n<parameter=room>\nkitch\n</parameter>\n"
                "</function>"));
  PostJson(kChat, history(""));
  PostError(400, kChat, history("no object"));
}

TEST_F(ApiTest, ReasoningIsSplitUnderBothNamesAndCounted) {
  Start();
  workers_[0]->Answer(Ids("4+4=8\n</think>\n\nEight"));
  const Json reply =
      PostJson(kChat, Hi(R"("chat_template_kwargs":{"enable_thinking":true})"));
  const Json message = reply["choices"][0]["message"];
  EXPECT_EQ(message["reasoning_content"], "4+4=8");
  EXPECT_EQ(message["reasoning"], "4+4=8");
  EXPECT_EQ(message["content"], "Eight");
  const int64_t reasoning =
      reply["usage"]["completion_tokens_details"]["reasoning_tokens"];
  EXPECT_EQ(reasoning,
            static_cast<int64_t>(Ids("4+4=8\n</think>", false).size()));

  // Cut off in the middle: all of it is reasoning, and there is no content.
  workers_[0]->Answer(Ids("4+4=8", false));
  const Json cut = PostJson(kChat, Hi(R"("enable_thinking":true)"));
  EXPECT_TRUE(cut["choices"][0]["message"]["content"].is_null());
  EXPECT_EQ(cut["choices"][0]["message"]["reasoning_content"], "4+4=8");
}

TEST_F(ApiTest, ReasoningThatTheTemplateStripsIsReported) {
  Start();
  const auto ask = [&](const std::string& more) {
    workers_[0]->Answer(Ids("Eight"));
    return PostJson(kChat, R"({"messages":[
        {"role":"user","content":"4+4?"},
        {"role":"assistant","content":"8","reasoning_content":"4+4=8"},
        {"role":"user","content":"In words?"}])" +
                               more + "}")["usage"];
  };
  const Json stripped = ask("");
  const int64_t tokens = static_cast<int64_t>(Ids("4+4=8", false).size());
  EXPECT_EQ(stripped["prompt_tokens_details"]["stripped_reasoning_tokens"],
            tokens);
  const Json preserved =
      ask(R"(,"chat_template_kwargs":{"preserve_thinking":true})");
  EXPECT_FALSE(
      preserved["prompt_tokens_details"].contains("stripped_reasoning_tokens"));
  EXPECT_GE(preserved["prompt_tokens"].get<int64_t>(),
            stripped["prompt_tokens"].get<int64_t>() + tokens);
  EXPECT_EQ(ask(R"(,"preserve_thinking":true)"), preserved);
  EXPECT_EQ(Metric("switchyard_router_stripped_reasoning_tokens_total"),
            absl::StrCat(tokens));
}

TEST_F(ApiTest, LogprobsAndTokenIdsAreExact) {
  Start();
  const std::vector<int32_t> answer = Ids("Mexico City");
  workers_[0]->Answer(answer);
  const std::string fields =
      R"("logprobs":true,"top_logprobs":3,"return_token_ids":true)";
  const Json whole = PostJson(kChat, Hi(fields));
  const auto prompt = workers_[0]->WaitForCall(0, Soon())->request().prompt_ids;
  EXPECT_EQ(whole["prompt_token_ids"], Json(prompt));
  EXPECT_EQ(whole["choices"][0]["token_ids"], Json(answer));
  const Json entries = whole["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(entries.size(), answer.size());
  std::string bytes;
  for (size_t i = 0; i < answer.size(); ++i) {
    const float expected =
        FakeLogprob(answer[i], static_cast<int64_t>(prompt.size() + i));
    const float got = static_cast<float>(entries[i]["logprob"].get<double>());
    EXPECT_EQ(std::memcmp(&got, &expected, sizeof(got)), 0) << i;
    EXPECT_EQ(entries[i]["top_logprobs"].size(), 3u);
    EXPECT_EQ(entries[i]["top_logprobs"][0]["token"], entries[i]["token"]);
    for (const Json& byte : entries[i]["bytes"]) {
      bytes += static_cast<char>(byte.get<int>());
    }
  }
  EXPECT_EQ(bytes, "Mexico City<|im_end|>");

  // The same, streamed: nothing lost, nothing twice.
  const auto events =
      Events(Post(kChat, Hi(fields + R"(,"stream":true)")).body);
  Json streamed_ids = Json::array(), streamed_entries = Json::array();
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const Json chunk = *ParseJson(event);
    const Json choice = chunk["choices"][0];
    for (const Json& id : choice["token_ids"]) streamed_ids.push_back(id);
    if (choice["logprobs"].is_null()) continue;
    for (const Json& e : choice["logprobs"]["content"]) {
      streamed_entries.push_back(e);
    }
  }
  EXPECT_EQ((*ParseJson(events[0]))["prompt_token_ids"], Json(prompt));
  EXPECT_EQ(streamed_ids, Json(answer));
  EXPECT_EQ(streamed_entries, entries);
}

TEST_F(ApiTest, CompletionLogprobsHaveOffsetsInCharacters) {
  Start();
  const std::vector<int32_t> answer = Ids("é City", false);
  workers_[0]->Answer(answer);
  const std::string body =
      R"({"prompt":"x","logprobs":1,"max_tokens":50,"return_token_ids":true)";
  const Json whole = PostJson(kCompletions, body + "}")["choices"][0];
  EXPECT_EQ(whole["text"], "é City");
  const Json logprobs = whole["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), answer.size());
  ASSERT_EQ(logprobs["token_logprobs"].size(), answer.size());
  ASSERT_EQ(logprobs["top_logprobs"].size(), answer.size());
  EXPECT_EQ(logprobs["text_offset"][0], 0);
  EXPECT_EQ(whole["prompt_token_ids"], Json(Ids("x", false)));

  Json streamed_offsets = Json::array();
  for (const std::string& event :
       Events(Post(kCompletions, body + R"(,"stream":true})").body)) {
    if (event == "[DONE]") continue;
    const Json choice = (*ParseJson(event))["choices"][0];
    if (choice["logprobs"].is_null()) continue;
    for (const Json& offset : choice["logprobs"]["text_offset"]) {
      streamed_offsets.push_back(offset);
    }
  }
  EXPECT_EQ(streamed_offsets, logprobs["text_offset"]);
}

TEST_F(ApiTest, SeveralPromptsAndChoicesHaveTheirIndicesAndSeeds) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  const Json reply = PostJson(
      kCompletions,
      R"({"prompt":["a",[5,6]],"n":2,"seed":7,"echo":true,"temperature":1})");
  ASSERT_EQ(reply["choices"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(reply["choices"][i]["index"], i);
  EXPECT_EQ(reply["choices"][1]["text"], "aok");
  EXPECT_EQ(reply["choices"][3]["text"],
            tokenizer_->Decode({5, 6}, false) + "ok");
  std::set<uint64_t> seeds;
  for (size_t i = 0; i < 4; ++i) {
    const auto& request = workers_[0]->WaitForCall(i, Soon())->request();
    EXPECT_EQ(request.sampling.seed, Generation::ChoiceSeed(7, i % 2));
    seeds.insert(request.sampling.seed);
  }
  EXPECT_EQ(seeds.size(), 2u);
  EXPECT_EQ(seeds.count(7), 1u);  // the first choice's is the request's
  // Prompts are counted once each, answers all.
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 2 + Ids("a", false).size());
  EXPECT_EQ(reply["usage"]["completion_tokens"], 4 * Ids("ok").size());
}

}  // namespace
}  // namespace switchyard::router
