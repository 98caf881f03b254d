// Anthropic's API: what its SDKs and coding agents send and read.
//
// The whole router but its workers (api_test_util.h).

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/anthropic/messages_request.h"
#include "router/openai/errors.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/http_client.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::HttpGet;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kMessages[] = "/v1/messages";

std::string Body(const std::string& fields) {
  return absl::StrCat(
      R"({"model":"m","max_tokens":200,"messages":[{"role":"user","content":"Hi"}])",
      fields.empty() ? "" : ",", fields, "}");
}

// (event, data) of a stream; the type within must be the event's.
std::vector<std::pair<std::string, Json>> NamedEvents(const std::string& body) {
  std::vector<std::pair<std::string, Json>> events;
  for (absl::string_view block :
       absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
    const std::vector<absl::string_view> lines = absl::StrSplit(block, '\n');
    EXPECT_EQ(lines.size(), 2u) << block;
    absl::string_view name = lines[0], data = lines[1];
    EXPECT_TRUE(absl::ConsumePrefix(&name, "event: ")) << block;
    EXPECT_TRUE(absl::ConsumePrefix(&data, "data: ")) << block;
    events.emplace_back(std::string(name), *ParseJson(data));
    EXPECT_EQ(events.back().second["type"], events.back().first);
  }
  return events;
}

constexpr char kTools[] =
    R"("tools":[{"name":"light","input_schema":{"type":"object",)"
    R"("properties":{"on":{"type":"boolean"}}}}])";
constexpr char kThinkAndCall[] =
    "It is dark.\n</think>\n\nI see.\n<tool_call>\n{\"name\": \"light\", "
    "\"arguments\": {\"on\": true}}\n</tool_call>";

TEST(ChatFromMessagesTest, TranslatesBlocks) {
  const auto chat = ChatFromMessages(
      *ParseJson(R"({"max_tokens":5,"system":[{"type":"text","text":"be brief",
        "cache_control":{"type":"ephemeral"}}],"stop_sequences":["x"],
        "tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true},
        "tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],
        "metadata":{"user_id":"u"},"top_k":5,
        "messages":[
          {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
          {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},
            {"type":"text","text":"ok"},{"type":"tool_use","id":"t1","name":"f","input":{"x":1}}]},
          {"role":"user","content":[{"type":"text","text":"and"},
            {"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"42"}]}]}]})"),
      /*counting=*/false);
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(
      (*chat)["messages"],
      *ParseJson(
          R"([{"role":"system","content":[{"type":"text","text":"be brief"}]},
              {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
              {"role":"assistant","content":[{"type":"text","text":"ok"}],
               "reasoning_content":"hm","tool_calls":[{"id":"t1","type":"function",
               "function":{"name":"f","arguments":{"x":1}}}]},
              {"role":"tool","tool_call_id":"t1","content":[{"type":"text","text":"42"}]},
              {"role":"user","content":[{"type":"text","text":"and"}]}])"));
  EXPECT_EQ((*chat)["tools"][0]["function"]["parameters"]["type"], "object");
  EXPECT_EQ((*chat)["tool_choice"]["function"]["name"], "f");
  EXPECT_EQ((*chat)["parallel_tool_calls"], false);
  EXPECT_EQ((*chat)["stop"], Json::array({"x"}));
  EXPECT_EQ((*chat)["user"], "u");
  EXPECT_EQ((*chat)["top_k"], 5);
  EXPECT_EQ((*chat)["enable_thinking"], false);
}

TEST(ChatFromMessagesTest, RefusesWithThePathOfWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"max_tokens":1})", "messages"},
      {R"({"messages":[{"role":"user","content":"x"}]})", "max_tokens"},
      {R"({"max_tokens":1,"messages":[{"role":"king","content":"x"}]})",
       "messages[0].role"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":5}]})",
       "messages[0].content"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":[{"type":"image"}]}]})",
       "messages[0].content[0].type"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[{"type":"web_search_20250305","name":"w"}]})",
       "tools[0].type"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":"x"}],"tool_choice":{"type":"most"}})",
       "tool_choice.type"},
      {R"({"max_tokens":1,"messages":[{"role":"user","content":"x"}],"thinking":{"type":"loud"}})",
       "thinking.type"},
  };
  for (const auto& [body, param] : cases) {
    const auto chat = ChatFromMessages(*ParseJson(body), false);
    ASSERT_FALSE(chat.ok()) << body;
    EXPECT_EQ(ToApiError(chat.status()).param, param) << body;
  }
}

class AnthropicTest : public ApiTest {};

TEST_F(AnthropicTest, AnswersWhole) {
  Start();
  const std::vector<int32_t> answer = Ids("Hello there");
  workers_[0]->Answer(answer);
  const Json reply = PostJson(kMessages, Body(""));
  EXPECT_THAT(reply["id"].get<std::string>(), HasSubstr("msg_"));
  EXPECT_EQ(reply["type"], "message");
  EXPECT_EQ(reply["role"], "assistant");
  EXPECT_EQ(reply["content"],
            *ParseJson(R"([{"type":"text","text":"Hello there"}])"));
  EXPECT_EQ(reply["stop_reason"], "end_turn");
  EXPECT_TRUE(reply["stop_sequence"].is_null());
  EXPECT_EQ(reply["usage"]["output_tokens"], answer.size());
  EXPECT_EQ(reply["usage"]["cache_read_input_tokens"], 0);
  EXPECT_EQ(workers_[0]->WaitForCall(0, Soon())->request().max_tokens, 200);
  EXPECT_EQ(
      PostJson(
          "/v1/messages/count_tokens",
          R"({"messages":[{"role":"user","content":"Hi"}]})")["input_tokens"],
      reply["usage"]["input_tokens"]);
}

TEST_F(AnthropicTest, ThinkingTextAndCallsAreBlocks) {
  Start();
  workers_[0]->Answer(Ids(kThinkAndCall));
  const Json reply = PostJson(
      kMessages,
      Body(absl::StrCat(
          kTools, R"(,"thinking":{"type":"enabled","budget_tokens":64})")));
  ASSERT_EQ(reply["content"].size(), 3u);
  EXPECT_EQ(reply["content"][0]["type"], "thinking");
  EXPECT_EQ(reply["content"][0]["thinking"], "It is dark.");
  EXPECT_EQ(reply["content"][1]["text"], "I see.");
  EXPECT_EQ(reply["content"][2]["type"], "tool_use");
  EXPECT_EQ(reply["content"][2]["name"], "light");
  EXPECT_EQ(reply["content"][2]["input"], Json({{"on", true}}));
  EXPECT_EQ(reply["stop_reason"], "tool_use");
  const auto& sampling =
      workers_[0]->WaitForCall(0, Soon())->request().sampling;
  ASSERT_TRUE(sampling.thinking_budget.has_value());
  EXPECT_EQ(sampling.thinking_budget->tokens, 64);
}

TEST_F(AnthropicTest, StreamsTheEventsThatItsClientsWaitFor) {
  Start();
  workers_[0]->Answer(Ids(kThinkAndCall));
  const auto reply =
      Post(kMessages,
           Body(absl::StrCat(
               kTools, R"(,"stream":true,"thinking":{"type":"enabled"})")));
  const auto events = NamedEvents(reply.body);
  std::vector<std::string> order;  // without repetitions
  std::string thinking, text, input;
  for (const auto& [name, data] : events) {
    std::string label = name;
    if (name == "content_block_delta") {
      const Json& delta = data["delta"];
      label = delta["type"].get<std::string>();
      if (label == "thinking_delta") thinking += delta["thinking"];
      if (label == "text_delta") text += delta["text"];
      if (label == "input_json_delta") input += delta["partial_json"];
    } else if (data.contains("index")) {
      absl::StrAppend(&label, " ", data["index"].get<int>());
    }
    if (order.empty() || order.back() != label) order.push_back(label);
  }
  EXPECT_THAT(
      order,
      ElementsAre("message_start", "content_block_start 0", "thinking_delta",
                  "signature_delta", "content_block_stop 0",
                  "content_block_start 1", "text_delta", "content_block_stop 1",
                  "content_block_start 2", "input_json_delta",
                  "content_block_stop 2", "message_delta", "message_stop"));
  EXPECT_EQ(thinking, "It is dark.");
  EXPECT_EQ(text, "I see.");
  EXPECT_EQ(*ParseJson(input), Json({{"on", true}}));
  const Json& start = events.front().second["message"];
  EXPECT_EQ(start["content"], Json::array());
  EXPECT_GT(start["usage"]["input_tokens"], 0);
  const Json& end = events[events.size() - 2].second;
  EXPECT_EQ(end["delta"]["stop_reason"], "tool_use");
  EXPECT_EQ(end["usage"]["output_tokens"], Ids(kThinkAndCall).size());
}

TEST_F(AnthropicTest, SaysWhyItStopped) {
  Start();
  workers_[0]->Answer(Ids("one two three", false));
  const Json cut = PostJson(kMessages, Body(R"("max_tokens":2)"));
  EXPECT_EQ(cut["stop_reason"], "max_tokens");
  const Json stopped = PostJson(kMessages, Body(R"("stop_sequences":["two"])"));
  EXPECT_EQ(stopped["stop_reason"], "stop_sequence");
  EXPECT_EQ(stopped["stop_sequence"], "two");
}

// An object must be there, and no more than what was generated.
TEST_F(AnthropicTest, ACallThatIsCutOffHasWhatCameOfItsInput) {
  Start();
  for (const auto& [arguments, input] :
       {std::pair("{\"a\": [1, 2], \"b\": \"half", R"({"a":[1,2],"b":"half"})"),
        std::pair("{\"a\": 1, \"b\"", R"({"a":1})"), std::pair("", "{}")}) {
    const std::vector<int32_t> answer =
        Ids(absl::StrCat("<tool_call>\n{\"name\": \"light\", \"arguments\": ",
                         arguments),
            false);
    workers_[0]->Answer(answer);
    const Json reply = PostJson(
        kMessages,
        Body(absl::StrCat(kTools, R"(,"max_tokens":)", answer.size())));
    EXPECT_EQ(reply["stop_reason"], "max_tokens");
    ASSERT_EQ(reply["content"].size(), 1u) << reply;
    EXPECT_EQ(reply["content"][0]["type"], "tool_use");
    EXPECT_EQ(reply["content"][0]["input"], *ParseJson(input));
  }
}

TEST_F(AnthropicTest, ErrorsHaveThisApisShape) {
  Start();
  const auto bad = Post(kMessages, R"({"max_tokens":1,"messages":[]})");
  EXPECT_EQ(bad.status, 400);
  const Json body = *ParseJson(bad.body);
  EXPECT_EQ(body["type"], "error");
  EXPECT_EQ(body["error"]["type"], "invalid_request_error");
  EXPECT_THAT(body["error"]["message"].get<std::string>(),
              HasSubstr("messages"));
  EXPECT_NE(bad.head.Get("request-id"), "");
  workers_[0]->SetState(AttentionWorkerInfo::State::kLoading);
  timers_.Advance(absl::Minutes(1));  // nobody waits for it any more
  const auto busy = Post(kMessages, Body(""));
  EXPECT_EQ(busy.status, 503);
  EXPECT_EQ((*ParseJson(busy.body))["error"]["type"], "overloaded_error");
}

// Those that are refused before the API sees them, too.
TEST_F(AnthropicTest, RefusalsHaveThisApisShape) {
  RouterServer::Options options;
  options.api_keys = {"secret"};
  Start(std::move(options));
  const auto stranger = Post(kMessages, Body(""));
  EXPECT_EQ(stranger.status, 401);
  const Json body = *ParseJson(stranger.body);
  EXPECT_EQ(body["type"], "error");
  EXPECT_EQ(body["error"]["type"], "authentication_error");
  server_.reset();
  Start();
  const auto wrong = HttpGet(server_->port(), kMessages);
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ((*ParseJson(wrong.body))["type"], "error");
  const auto unknown = HttpGet(server_->port(), "/v1/messages/batches");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ((*ParseJson(unknown.body))["error"]["type"], "not_found_error");
}

TEST_F(AnthropicTest, ALostWorkerEndsTheStreamWithAnErrorEvent) {
  Start();
  auto client = OpenStream(kMessages, Body(R"("stream":true)"));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  call->Token(Ids("Hello", false)[0]);
  call->Done(absl::InternalError("out of order"));
  const auto reply = client->ReadReply();
  const auto events = NamedEvents(reply.body);
  EXPECT_EQ(events.back().first, "error");
  EXPECT_EQ(events.back().second["error"]["type"], "api_error");
}

}  // namespace
}  // namespace switchyard::router
