// OpenAI's Responses API.
//
// The whole router but its workers (api_test_util.h).

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/openai/errors.h"
#include "router/responses/response_store.h"
#include "router/responses/responses_request.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/raw_http_connection.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::HttpGet;
using ::switchyard::testing::RawHttpConnection;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kResponses[] = "/v1/responses";
constexpr char kTools[] =
    R"("tools":[{"type":"function","name":"light","parameters":)"
    R"({"type":"object","properties":{"on":{"type":"boolean"}}}}])";
constexpr char kThinkAndCall[] =
    "It is dark.\n</think>\n\nI see.\n<tool_call>\n{\"name\": \"light\", "
    "\"arguments\": {\"on\": true}}\n</tool_call>";

std::string Body(const std::string& fields = "") {
  return absl::StrCat(R"({"model":"m","input":"Hi")", fields.empty() ? "" : ",",
                      fields, "}");
}

TEST(ResponsesRequestTest, TurnsItemsIntoMessages) {
  const auto request = ParseResponsesRequest(
      *ParseJson(R"({"instructions":"be brief","max_output_tokens":9,
        "reasoning":{"effort":"low"},"temperature":0.5,
        "tool_choice":{"type":"function","name":"f"},
        "text":{"format":{"type":"json_schema","name":"n","schema":{}}},
        "input":[{"role":"user","content":"q"},
          {"type":"reasoning","id":"r","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
          {"type":"message","role":"assistant","content":[{"type":"output_text","text":"a"}]},
          {"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},
          {"type":"function_call","call_id":"c2","name":"f","arguments":"{}"},
          {"type":"function_call_output","call_id":"c1","output":"1"},
          {"type":"message","role":"developer","content":"late"}]})"),
      *ParseJson(R"([{"role":"user","content":"before"}])"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->chat["messages"],
            *ParseJson(
                R"([{"role":"system","content":"be brief"},
              {"role":"user","content":"before"},
              {"role":"user","content":"q"},
              {"role":"assistant","reasoning_content":"hm",
               "content":[{"type":"output_text","text":"a"}],
               "tool_calls":[
                {"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},
                {"id":"c2","type":"function","function":{"name":"f","arguments":"{}"}}]},
              {"role":"tool","tool_call_id":"c1","content":"1"},
              {"role":"developer","content":"late"}])"));
  EXPECT_EQ(request->chat["max_completion_tokens"], 9);
  EXPECT_EQ(request->chat["reasoning_effort"], "low");
  EXPECT_EQ(request->chat["temperature"], 0.5);
  EXPECT_EQ(request->chat["tool_choice"]["function"]["name"], "f");
  EXPECT_EQ(request->chat["response_format"]["json_schema"]["name"], "n");
  EXPECT_EQ(request->history.size(), 8u);
  EXPECT_TRUE(request->store);
}

TEST(ResponsesRequestTest, RefusesWithThePathOfWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({})", "input"},
      {R"({"input":5})", "input"},
      {R"({"input":[5]})", "input[0]"},
      {R"({"input":[{"type":"computer_call"}]})", "input[0].type"},
      {R"({"input":[{"role":"user"}]})", "input[0].content"},
      {R"({"input":"x","tools":[{"type":"web_search"}]})", "tools[0].type"},
      {R"({"input":"x","tool_choice":{"type":"file_search"}})", "tool_choice"},
      {R"({"input":"x","max_output_tokens":0})", "max_output_tokens"},
      {R"({"input":"x","conversation":"c"})", "conversation"},
      {R"({"input":"x","top_logprobs":2})", "top_logprobs"},
  };
  for (const auto& [body, param] : cases) {
    const auto request = ParseResponsesRequest(*ParseJson(body), Json::array());
    ASSERT_FALSE(request.ok()) << body;
    EXPECT_EQ(ToApiError(request.status()).param, param) << body;
  }
}

TEST(ResponseStoreTest, ForgetsTheLongestUnused) {
  ResponseStore store(1000);
  const auto put = [&](const std::string& id, size_t bytes) {
    store.Put(id, {std::string(bytes, 'x'), Json::array(), Json::array()});
  };
  put("a", 300);
  put("b", 300);
  put("c", 300);
  EXPECT_NE(store.Get("a"), nullptr);  // a use
  put("d", 300);
  EXPECT_EQ(store.Get("b"), nullptr);
  EXPECT_NE(store.Get("a"), nullptr);
  EXPECT_NE(store.Get("c"), nullptr);
  put("a", 10);  // replaces
  put("e", 500);
  EXPECT_EQ(store.Get("d"), nullptr);
  EXPECT_NE(store.Get("a"), nullptr);
  put("f", 2000);  // never fits
  EXPECT_EQ(store.Get("f"), nullptr);
  EXPECT_NE(store.Get("e"), nullptr);
  EXPECT_TRUE(store.Erase("e"));
  EXPECT_FALSE(store.Erase("e"));
}

class ResponsesTest : public ApiTest {
 protected:
  RawHttpConnection::Reply Call(const std::string& method,
                                const std::string& path) {
    auto client = RawHttpConnection::Connect(server_->port());
    EXPECT_TRUE(client->Request(method, path, ""));
    return client->ReadReply();
  }
};

TEST_F(ResponsesTest, AnswersWholeAndRemembers) {
  Start();
  const std::vector<int32_t> answer = Ids("Hello there");
  workers_[0]->Answer(answer);
  const Json reply = PostJson(kResponses, Body(R"("metadata":{"k":"v"})"));
  EXPECT_EQ(reply["object"], "response");
  EXPECT_EQ(reply["status"], "completed");
  EXPECT_TRUE(reply["error"].is_null());
  ASSERT_EQ(reply["output"].size(), 1u);
  EXPECT_EQ(reply["output"][0]["type"], "message");
  EXPECT_EQ(reply["output"][0]["content"][0]["text"], "Hello there");
  EXPECT_EQ(reply["usage"]["output_tokens"], answer.size());
  EXPECT_EQ(reply["metadata"]["k"], "v");
  const std::string id = reply["id"];
  const std::string path = absl::StrCat(kResponses, "/", id);
  EXPECT_EQ(*ParseJson(HttpGet(server_->port(), path).body), reply);
  const Json items = *ParseJson(
      HttpGet(server_->port(), path + "/input_items?order=asc").body);
  EXPECT_EQ(items["data"][0]["content"][0]["text"], "Hi");
  EXPECT_EQ(items["has_more"], false);

  // The conversation goes on.
  const Json next = PostJson(
      kResponses,
      absl::StrCat(R"({"input":"And?","previous_response_id":")", id, R"("})"));
  EXPECT_EQ(next["previous_response_id"], id);
  const auto& request = workers_[0]->WaitForCall(1, Soon())->request();
  EXPECT_THAT(tokenizer_->Decode(request.prompt_ids, false),
              HasSubstr("Hi<|im_end|>\n<|im_start|>assistant\nHello "
                        "there<|im_end|>\n<|im_start|>user\nAnd?"));

  EXPECT_EQ((*ParseJson(Call("DELETE", path).body))["deleted"], true);
  EXPECT_EQ(Call("GET", path).status, 404);
  EXPECT_EQ(Call("DELETE", path).status, 404);
  EXPECT_EQ(PostError(404, kResponses,
                      absl::StrCat(R"({"input":"x","previous_response_id":")",
                                   id, R"("})"))["type"],
            "invalid_request_error");
}

TEST_F(ResponsesTest, WhatIsNotToBeStoredIsNot) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  const Json reply = PostJson(kResponses, Body(R"("store":false)"));
  EXPECT_EQ(
      Call("GET", absl::StrCat(kResponses, "/", reply["id"].get<std::string>()))
          .status,
      404);
}

TEST_F(ResponsesTest, ReasoningTextAndCallsAreItems) {
  Start();
  workers_[0]->Answer(Ids(kThinkAndCall));
  const Json reply =
      PostJson(kResponses,
               Body(absl::StrCat(kTools, R"(,"reasoning":{"effort":"high"})")));
  ASSERT_EQ(reply["output"].size(), 3u);
  EXPECT_EQ(reply["output"][0]["type"], "reasoning");
  EXPECT_EQ(reply["output"][0]["content"][0]["text"], "It is dark.");
  EXPECT_EQ(reply["output"][1]["content"][0]["text"], "I see.");
  const Json call = reply["output"][2];
  EXPECT_EQ(call["type"], "function_call");
  EXPECT_EQ(call["name"], "light");
  EXPECT_EQ(call["arguments"], R"({"on": true})");
  EXPECT_EQ(call["status"], "completed");
  EXPECT_GT(reply["usage"]["output_tokens_details"]["reasoning_tokens"], 0);
}

TEST_F(ResponsesTest, StreamsTheWholeSequenceOfEvents) {
  Start();
  workers_[0]->Answer(Ids(kThinkAndCall));
  const std::string body =
      Post(kResponses,
           Body(absl::StrCat(
               kTools, R"(,"stream":true,"reasoning":{"effort":"high"})")))
          .body;
  std::vector<std::string> order;  // without repetitions
  std::string reasoning, text, arguments;
  Json last;
  int64_t number = 0;
  for (absl::string_view block :
       absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
    const std::vector<absl::string_view> lines = absl::StrSplit(block, '\n');
    ASSERT_EQ(lines.size(), 2u) << block;
    absl::string_view data = lines[1];
    ASSERT_TRUE(absl::ConsumePrefix(&data, "data: "));
    last = *ParseJson(data);
    const std::string type = last["type"];
    EXPECT_EQ(lines[0], absl::StrCat("event: ", type));
    EXPECT_EQ(last["sequence_number"], number++);
    if (type == "response.reasoning_text.delta") reasoning += last["delta"];
    if (type == "response.output_text.delta") text += last["delta"];
    if (type == "response.function_call_arguments.delta") {
      arguments += last["delta"];
    }
    if (order.empty() || order.back() != type) order.push_back(type);
  }
  EXPECT_THAT(
      order,
      ElementsAre("response.created", "response.in_progress",
                  "response.output_item.added", "response.content_part.added",
                  "response.reasoning_text.delta",
                  "response.reasoning_text.done", "response.content_part.done",
                  "response.output_item.done", "response.output_item.added",
                  "response.content_part.added", "response.output_text.delta",
                  "response.output_text.done", "response.content_part.done",
                  "response.output_item.done", "response.output_item.added",
                  "response.function_call_arguments.delta",
                  "response.function_call_arguments.done",
                  "response.output_item.done", "response.completed"));
  EXPECT_EQ(reasoning, "It is dark.");
  EXPECT_EQ(text, "I see.");
  EXPECT_EQ(arguments, R"({"on": true})");
  // The last event has all of it, as a GET has.
  const Json& output = last["response"]["output"];
  ASSERT_EQ(output.size(), 3u);
  EXPECT_EQ(output[1]["content"][0]["text"], "I see.");
  EXPECT_EQ(output[2]["arguments"], arguments);
  EXPECT_EQ(
      *ParseJson(
          Call("GET", absl::StrCat(kResponses, "/",
                                   last["response"]["id"].get<std::string>()))
              .body),
      last["response"]);
}

TEST_F(ResponsesTest, AnAnswerCutOffIsIncomplete) {
  Start();
  workers_[0]->Answer(Ids("one two three", false));
  const Json reply = PostJson(kResponses, Body(R"("max_output_tokens":2)"));
  EXPECT_EQ(reply["status"], "incomplete");
  EXPECT_EQ(reply["incomplete_details"]["reason"], "max_output_tokens");
}

TEST_F(ResponsesTest, BackgroundAnswersAreQueuedThenDoneOrCancelled) {
  Start();
  const auto ask = [&] {
    const Json queued = PostJson(kResponses, Body(R"("background":true)"));
    EXPECT_EQ(queued["status"], "queued");
    return absl::StrCat(kResponses, "/", queued["id"].get<std::string>());
  };
  const auto status = [&](const std::string& path) {
    return (*ParseJson(HttpGet(server_->port(), path).body))["status"]
        .get<std::string>();
  };
  // The end is heard of by the last reference to the request.
  const auto wait_for_end = [&](const std::string& path) {
    const absl::Time deadline = Soon();
    while (status(path) == "queued" && absl::Now() < deadline) {
    }
    return status(path);
  };
  const std::string first = ask();
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  for (const int32_t id : Ids("done")) call->Token(id);
  call->Done(absl::OkStatus());
  EXPECT_EQ(wait_for_end(first), "completed");
  EXPECT_EQ((*ParseJson(HttpGet(server_->port(), first)
                            .body))["output"][0]["content"][0]["text"],
            "done");

  const std::string second = ask();
  const auto slow = workers_[0]->WaitForCall(1, Soon());
  ASSERT_NE(slow, nullptr);
  EXPECT_EQ(PostJson(second + "/cancel", "")["status"], "cancelled");
  EXPECT_TRUE(slow->WaitUntilCancelled(Soon()));
  EXPECT_EQ(wait_for_end(second), "cancelled");
  EXPECT_EQ(Call("POST", absl::StrCat(kResponses, "/none/cancel")).status, 404);

  // One that is deleted is given up, and does not come back with its end.
  const std::string third = ask();
  const auto unwanted = workers_[0]->WaitForCall(2, Soon());
  ASSERT_NE(unwanted, nullptr);
  EXPECT_EQ((*ParseJson(Call("DELETE", third).body))["deleted"], true);
  EXPECT_TRUE(unwanted->WaitUntilCancelled(Soon()));
}

TEST(ResponseStoreTest, ReplacesOnlyWhatIsThere) {
  ResponseStore store(10'000);
  store.Replace("a", {Json({{"n", 1}}), Json(), Json()});
  EXPECT_EQ(store.Get("a"), nullptr);
  store.Put("a", {Json({{"n", 1}}), Json(), Json()});
  store.Replace("a", {Json({{"n", 2}}), Json(), Json()});
  EXPECT_EQ(store.Get("a")->response["n"], 2);
  EXPECT_TRUE(store.Erase("a"));
  store.Replace("a", {Json({{"n", 3}}), Json(), Json()});
  EXPECT_EQ(store.Get("a"), nullptr);
}

TEST_F(ResponsesTest, AFailureIsTheLastEvent) {
  Start();
  auto client = OpenStream(kResponses, Body(R"("stream":true)"));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  call->Token(Ids("Hello", false)[0]);
  call->Done(absl::InternalError("out of order"));
  const std::string body = client->ReadReply().body;
  EXPECT_THAT(body, HasSubstr("event: error\n"));
  EXPECT_THAT(body.substr(body.rfind("event: ")),
              HasSubstr("event: response.failed"));
  EXPECT_THAT(body, HasSubstr("out of order"));
}

}  // namespace
}  // namespace switchyard::router
