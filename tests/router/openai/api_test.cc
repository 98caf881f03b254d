// The whole router but its workers: real HTTP over loopback, the demo model's
// tokenizer and template, attention workers that say what a test tells them.

#include <cmath>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/openai/generation.h"
#include "router/server.h"
#include "router/text/tokenizer.h"
#include "tests/testing/fake_timer_queue.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/raw_http_connection.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using switchyard::testing::FakeLogprob;
using switchyard::testing::FakeTimerQueue;
using switchyard::testing::HttpGet;
using switchyard::testing::HttpPost;
using switchyard::testing::ModelPath;
using switchyard::testing::RawHttpConnection;
using switchyard::testing::ScriptedAttentionClient;
using switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using State = AttentionWorkerInfo::State;

constexpr int32_t kEos = 1529;  // <|im_end|> of the demo model
constexpr char kChat[] = "/v1/chat/completions";
constexpr char kCompletions[] = "/v1/completions";

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

// The data of SSE events, comments left out.
std::vector<std::string> Events(const std::string& body) {
  std::vector<std::string> events;
  for (absl::string_view event : absl::StrSplit(body, "\n\n")) {
    if (absl::ConsumePrefix(&event, "data: ")) {
      events.emplace_back(event);
    }
  }
  return events;
}

// The text of a stream's chunks, put together.
std::string StreamedContent(const std::vector<std::string>& events) {
  std::string content;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const Json chunk = *ParseJson(event);
    for (const Json& choice : chunk["choices"]) {
      if (choice.contains("text")) {
        content += choice["text"].get<std::string>();
      } else if (choice["delta"].contains("content")) {
        content += choice["delta"]["content"].get<std::string>();
      }
    }
  }
  return content;
}

class ApiTest : public ::testing::Test {
 protected:
  ApiTest() {
    auto tokenizer = Tokenizer::Load(ModelPath("demo"));
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  void Start(RouterServer::Options options = {}, int num_workers = 1) {
    options.model_dir = ModelPath("demo");
    for (int i = 0; i < num_workers; ++i) {
      workers_.push_back(std::make_shared<ScriptedAttentionClient>(
          absl::StrCat("worker-", i)));
      options.workers.push_back(workers_.back());
    }
    options.timers = &timers_;
    options.random = [this] { return ++random_; };
    auto server = RouterServer::Start(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::vector<int32_t> Ids(const std::string& text, bool eos = true) {
    std::vector<int32_t> ids = tokenizer_->Encode(text);
    if (eos) ids.push_back(kEos);
    return ids;
  }

  RawHttpConnection::Reply Post(const std::string& path,
                                const std::string& body) {
    return HttpPost(server_->port(), path, body);
  }
  // Expects 200.
  Json PostJson(const std::string& path, const std::string& body) {
    const auto reply = Post(path, body);
    EXPECT_EQ(reply.status, 200) << reply.body;
    return ParseJson(reply.body).value_or(Json::object());
  }
  // Expects an error object with that status; returns it.
  Json PostError(int status, const std::string& path, const std::string& body) {
    const auto reply = Post(path, body);
    EXPECT_EQ(reply.status, status)
        << reply.body << " for " << body.substr(0, 200);
    const auto json = ParseJson(reply.body);
    if (!json.ok() || !json->contains("error")) {
      ADD_FAILURE() << "no error object: " << reply.body;
      return Json::object();
    }
    for (const char* key : {"message", "type", "param", "code"}) {
      EXPECT_TRUE((*json)["error"].contains(key)) << reply.body;
    }
    return (*json)["error"];
  }

  static std::string Hi(const std::string& fields = "") {
    return absl::StrCat(
        R"({"model":"m","messages":[{"role":"user","content":"Hi"}])",
        fields.empty() ? "" : ",", fields, "}");
  }

  // A stream that has begun.
  std::unique_ptr<RawHttpConnection> OpenStream(const std::string& path,
                                                const std::string& body) {
    auto client = RawHttpConnection::Connect(server_->port());
    EXPECT_TRUE(client->Request("POST", path, body));
    return client;
  }

  std::string Metric(const std::string& name_and_labels) {
    const std::string body = HttpGet(server_->port(), "/metrics").body;
    for (absl::string_view line : absl::StrSplit(body, '\n')) {
      if (absl::ConsumePrefix(&line, name_and_labels + " ")) {
        return std::string(line);
      }
    }
    return "absent";
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  FakeTimerQueue timers_;
  std::atomic<uint64_t> random_{0};
  std::vector<std::shared_ptr<ScriptedAttentionClient>> workers_;
  std::unique_ptr<RouterServer> server_;
};

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
          R"("stop_reason":null}],"usage":{"prompt_tokens":)",
          prompt, R"(,"completion_tokens":)", answer.size(),
          R"(,"total_tokens":)", prompt + answer.size(),
          R"(,"prompt_tokens_details":{"cached_tokens":0},)"
          R"("completion_tokens_details":{"reasoning_tokens":0}}})"));
  // The prompt is the template's, and greedy is the demo model's default.
  EXPECT_EQ(tokenizer_->Decode(call->request().prompt_ids, false),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(call->request().sampling.temperature, 0);
  EXPECT_THAT(call->request().stop_token_ids,
              ::testing::ElementsAre(1529, 1527));
  EXPECT_EQ(call->request().max_tokens, 4096 - static_cast<int64_t>(prompt));
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
          R"("finish_reason":"stop","stop_reason":null}],"usage":null})",
          "\n\n", prefix, R"("choices":[],"usage":{"prompt_tokens":)",
          prompt.size(), R"(,"completion_tokens":3,"total_tokens":)",
          prompt.size() + 3,
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
                  HasSubstr(R"("finish_reason":"stop","stop_reason":"City")"));
    } else {
      const Json choice = (*ParseJson(reply.body))["choices"][0];
      EXPECT_EQ(choice["message"]["content"], "Mexico ");
      EXPECT_EQ(choice["finish_reason"], "stop");
      EXPECT_EQ(choice["stop_reason"], "City");
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

TEST_F(ApiTest, ClientThatGoesAwayCancelsAtTheWorker) {
  Start();
  for (const bool stream : {false, true}) {
    const size_t index = workers_[0]->num_calls();
    auto client = OpenStream(
        kChat,
        Hi(absl::StrCat(R"("n":2,"stream":)", stream ? "true" : "false")));
    const auto first = workers_[0]->WaitForCall(index, Soon());
    const auto second = workers_[0]->WaitForCall(index + 1, Soon());
    ASSERT_NE(second, nullptr);
    first->Token(5);
    client->Close();
    EXPECT_TRUE(first->WaitUntilCancelled(Soon()));
    EXPECT_TRUE(second->WaitUntilCancelled(Soon()));
  }
}

TEST_F(ApiTest, SlowReaderIsCancelledAndOthersAreServed) {
  RouterServer::Options options;
  options.max_send_buffer_bytes = 64 << 10;
  options.http_threads = 1;
  Start(std::move(options));
  auto slow = RawHttpConnection::Connect(server_->port(), 4096);
  // Some 3 KB a token: far more than the kernel's buffers hold in the end.
  ASSERT_TRUE(slow->Request(
      "POST", kChat, Hi(R"("stream":true,"logprobs":true,"top_logprobs":20)")));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  ASSERT_GT(call->request().max_tokens, 4000);
  for (int64_t i = 0; i < call->request().max_tokens && call->Token(500); ++i) {
  }
  EXPECT_TRUE(call->WaitUntilCancelled(Soon()));
  workers_[0]->Answer(Ids("ok"));
  EXPECT_EQ(PostJson(kChat, Hi())["choices"][0]["message"]["content"], "ok");
}

TEST_F(ApiTest, SilentStreamGetsCommentsEveryFifteenSeconds) {
  Start();
  auto client = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  // Keep-alive and deadline.
  ASSERT_TRUE(timers_.WaitForTimers(2, Soon()));
  timers_.Advance(absl::Seconds(15));
  const auto head = client->ReadHead();
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(*client->ReadChunk(), ": keep-alive\n\n");
  // A token counts as a sign of life.
  ASSERT_TRUE(timers_.WaitForTimers(2, Soon()));
  timers_.Advance(absl::Seconds(10));
  call->Token(Ids("Hi", false)[0]);
  EXPECT_THAT(*client->ReadChunk(), HasSubstr(R"("role":"assistant")"));
  timers_.Advance(absl::Seconds(5));
  ASSERT_TRUE(timers_.WaitForTimers(2, Soon()));
  timers_.Advance(absl::Seconds(10));
  EXPECT_EQ(*client->ReadChunk(), ": keep-alive\n\n");
  call->Done(absl::OkStatus());
  EXPECT_THAT(client->ReadBody(*head), Not(HasSubstr("keep-alive")));
}

TEST_F(ApiTest, BadInputGetsAnErrorObjectAndTheServerStays) {
  Start();
  workers_[0]->Answer(Ids("ok"));
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"),
        std::string("\xff\xfe"), std::string(R"({"messages":"x"})"),
        std::string(R"({"messages":[]})"),
        std::string(R"({"messages":[{"role":"king","content":""}]})"),
        std::string(R"({"messages":[{"role":"user","content":{"a":1}}]})"),
        Hi(R"("temperature":"hot")"), Hi(R"("stream":true,"max_tokens":-1)"),
        std::string(100'000, '['), std::string(R"({"a":NaN})")}) {
    const Json error = PostError(400, kChat, body);
    EXPECT_EQ(error["type"], "invalid_request_error");
  }
  EXPECT_EQ(PostError(400, kChat, Hi(R"("n":"x")"))["param"], "n");
  // Ten megabytes of words: refused with the numbers, in any case.
  std::string words;
  while (words.size() < 10'000'000) words += "word ";
  const Json too_long = PostError(
      400, kCompletions, absl::StrCat(R"({"prompt":")", words, R"("})"));
  EXPECT_THAT(
      too_long["message"].get<std::string>(),
      AllOf(HasSubstr("4096"), MatchesRegex(".*has [0-9]{7,} tokens.*")));
  std::string ids = "[5";
  for (int i = 1; i < 5000; ++i) ids += ",5";
  const Json beyond =
      PostError(400, kCompletions, absl::StrCat(R"({"prompt":)", ids, "]}"));
  EXPECT_THAT(beyond["message"].get<std::string>(),
              AllOf(HasSubstr("5000"), HasSubstr("4096")));
  EXPECT_EQ(beyond["param"], "prompt");
  PostError(400, kCompletions, R"({"prompt":[1536]})");
  PostError(400, kCompletions, R"({"prompt":""})");
  PostError(413, kChat, std::string((16 << 20) + 1, ' '));
  EXPECT_EQ(PostJson(kChat, Hi())["choices"][0]["message"]["content"], "ok");
}

TEST_F(ApiTest, UnknownPathsAndMethods) {
  Start();
  EXPECT_EQ(HttpGet(server_->port(), "/v1/embeddings").status, 404);
  const auto wrong = HttpGet(server_->port(), kChat);
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.head.Get("Allow"), "POST, OPTIONS");
  PostError(404, "/v2/chat", "{}");
  PostError(405, "/v1/models", "{}");
  auto client = RawHttpConnection::Connect(server_->port());
  ASSERT_TRUE(client->Request("OPTIONS", kChat));
  EXPECT_EQ(client->ReadReply().status, 204);
  ASSERT_TRUE(client->Request("HEAD", "/health"));
  EXPECT_EQ(client->ReadHead()->status, 200);
}

TEST_F(ApiTest, ModelsVersionAndRequestIds) {
  Start();
  const Json list = *ParseJson(HttpGet(server_->port(), "/v1/models").body);
  EXPECT_EQ(list["data"][0]["id"], "demo");
  EXPECT_EQ(list["data"][0]["max_model_len"], 4096);
  EXPECT_EQ(HttpGet(server_->port(), "/v1/models/demo").status, 200);
  const auto other = HttpGet(server_->port(), "/v1/models/other");
  EXPECT_EQ(other.status, 404);
  EXPECT_THAT(other.body, HasSubstr(R"("code":"model_not_found")"));
  EXPECT_THAT(HttpGet(server_->port(), "/version").body, HasSubstr("version"));

  auto client = RawHttpConnection::Connect(server_->port());
  ASSERT_TRUE(client->Request("GET", "/livez", "", "X-Request-Id: abc-1\r\n"));
  EXPECT_EQ(client->ReadReply().head.Get("x-request-id"), "abc-1");
  ASSERT_TRUE(client->Request("GET", "/livez"));
  EXPECT_THAT(client->ReadReply().head.Get("x-request-id"),
              MatchesRegex("req-[0-9a-f]{24}"));
}

TEST_F(ApiTest, ReadinessSaysHowEachWorkerIs) {
  Start();
  EXPECT_EQ(HttpGet(server_->port(), "/readyz").status, 200);
  workers_[0]->SetState(State::kWaitingExperts, "experts 16-31 have no holder");
  const auto reply = HttpGet(server_->port(), "/readyz");
  EXPECT_EQ(reply.status, 503);
  EXPECT_NE(reply.head.Get("Retry-After"), "");
  const Json worker = (*ParseJson(reply.body))["workers"][0];
  EXPECT_EQ(worker["state"], "waiting_experts");
  EXPECT_EQ(worker["message"], "experts 16-31 have no holder");
  EXPECT_EQ(HttpGet(server_->port(), "/health").status, 503);
  EXPECT_EQ(HttpGet(server_->port(), "/livez").status, 200);
  // Requests wait at that worker, within their deadline.
  workers_[0]->Answer(Ids("ok"));
  PostJson(kChat, Hi());

  AttentionWorkerInfo loading;
  loading.state = State::kLoading;
  loading.loading_progress = 0.25;
  loading.message = "reading layer 12";
  workers_[0]->SetInfo(loading);
  EXPECT_THAT(HttpGet(server_->port(), "/readyz").body,
              HasSubstr(R"("loading_progress":0.25)"));
  const auto refusal = Post(kChat, Hi());
  EXPECT_EQ(refusal.status, 503);
  EXPECT_NE(refusal.head.Get("Retry-After"), "");
  EXPECT_THAT(refusal.body, HasSubstr("reading layer 12"));
}

TEST_F(ApiTest, WorkersErrorsHaveTheirHttpStatus) {
  Start();
  const std::pair<absl::Status, int> cases[] = {
      {absl::InvalidArgumentError("bad"), 400},
      {absl::ResourceExhaustedError("full"), 429},
      {absl::DeadlineExceededError("experts 3, 5 of layer 2 have no holder"),
       504},
      {absl::InternalError("broken"), 502},
      {absl::FailedPreconditionError("other weights"), 503},
  };
  for (const auto& [status, http_status] : cases) {
    workers_[0]->FailAll(status);
    EXPECT_THAT(
        PostError(http_status, kChat, Hi())["message"].get<std::string>(),
        HasSubstr(std::string(status.message())));
    // A stream that has not begun gets the status too.
    PostError(http_status, kChat, Hi(R"("stream":true)"));
  }
}

TEST_F(ApiTest, ErrorInTheMiddleOfAStreamIsAnEvent) {
  Start();
  auto client = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  call->Token(Ids("Hi", false)[0]);
  call->Done(absl::DeadlineExceededError("expert 7 has no holder"));
  const auto events = Events(client->ReadReply().body);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ((*ParseJson(events[1]))["error"]["message"],
            "expert 7 has no holder");
  EXPECT_EQ(events[2], "[DONE]");
}

TEST_F(ApiTest, DeadWorkersSequenceGoesOnAtAnother) {
  Start({}, /*num_workers=*/2);
  const std::vector<int32_t> answer = Ids("Mexico City is large");
  auto client = OpenStream(kChat, Hi(R"("stream":true,"seed":11)"));
  // Either may be chosen first.
  std::shared_ptr<ScriptedAttentionClient::Call> first;
  size_t at = 0;
  const absl::Time deadline = Soon();
  while (first == nullptr && absl::Now() < deadline) {
    at = 1 - at;
    first = workers_[at]->WaitForCall(0, absl::Now() + absl::Milliseconds(10));
  }
  ASSERT_NE(first, nullptr);
  workers_[1 - at]->Answer(answer);
  first->Token(answer[0]);
  first->Token(answer[1]);
  workers_[at]->SetState(State::kUnreachable);
  first->Done(absl::UnavailableError("connection reset"));
  const auto reply = client->ReadReply();
  EXPECT_EQ(StreamedContent(Events(reply.body)), "Mexico City is large");
  const auto second = workers_[1 - at]->WaitForCall(0, Soon());
  EXPECT_THAT(second->request().resumed_output_ids,
              ::testing::ElementsAre(answer[0], answer[1]));
  EXPECT_EQ(second->request().sampling.seed, 11u);
  EXPECT_EQ(second->request().max_tokens, first->request().max_tokens);
  EXPECT_NE(second->request().id, first->request().id);
  EXPECT_EQ(Metric("switchyard_router_replays_total"), "1");
}

TEST_F(ApiTest, OnlyWorkersSequenceWaitsUntilItIsBackOrTheTimeIsOver) {
  RouterServer::Options options;
  options.failover_timeout = absl::Seconds(5);
  Start(std::move(options));
  const std::vector<int32_t> answer = Ids("Mexico City");
  auto client = OpenStream(kChat, Hi());
  auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  call->Token(answer[0]);
  workers_[0]->SetState(State::kUnreachable);
  call->Done(absl::UnavailableError("connection reset"));
  ASSERT_TRUE(
      timers_.WaitForTimers(2, Soon()));  // the deadline's and the retry
  workers_[0]->SetState(State::kReady);
  workers_[0]->Answer(answer);
  timers_.Advance(absl::Seconds(1));
  EXPECT_THAT(client->ReadReply().body,
              HasSubstr(R"("content":"Mexico City")"));

  // And once more, but it does not come back.
  workers_[0]->FailAll(absl::UnavailableError("connection reset"));
  client = OpenStream(kChat, Hi());
  const size_t before = workers_[0]->num_calls();
  ASSERT_NE(workers_[0]->WaitForCall(before, Soon()), nullptr);
  std::thread patience([&] {
    for (int i = 0; i < 200; ++i) {
      if (!timers_.WaitForTimers(2, absl::Now() + absl::Milliseconds(100)))
        break;
      timers_.Advance(absl::Seconds(1));
    }
  });
  const auto reply = client->ReadReply();
  patience.join();
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, HasSubstr("connection reset"));
}

TEST_F(ApiTest, WorkerThatDiesBehindItsLastTokenCostsNothing) {
  Start();
  auto client = OpenStream(kChat, Hi());
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  for (const int32_t id : Ids("Hi")) call->Token(id);
  call->Done(absl::UnavailableError("connection reset"));
  const Json choice = (*ParseJson(client->ReadReply().body))["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "Hi");
  EXPECT_EQ(choice["finish_reason"], "stop");
}

TEST_F(ApiTest, TokenOfAnotherPositionEndsTheRequest) {
  Start();
  auto client = OpenStream(kChat, Hi());
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  call->TokenAt(5, 99'999);
  const auto reply = client->ReadReply();
  EXPECT_EQ(reply.status, 502);
  EXPECT_THAT(reply.body, HasSubstr("99999"));
  EXPECT_TRUE(call->WaitUntilCancelled(Soon()));
}

TEST_F(ApiTest, FullWorkerIsNotTheLastWord) {
  Start({}, /*num_workers=*/2);
  workers_[0]->FailAll(absl::ResourceExhaustedError("full"));
  workers_[1]->Answer(Ids("ok"));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(PostJson(kChat, Hi())["choices"][0]["message"]["content"], "ok");
  }
  EXPECT_GE(workers_[0]->num_calls(), 1u);
}

TEST_F(ApiTest, DeadlineEndsARequestThatItsWorkerForgot) {
  Start();
  auto client = OpenStream(kChat, Hi(R"("timeout":3)"));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->request().deadline,
            absl::FromUnixSeconds(1735689600) + absl::Seconds(3));
  ASSERT_TRUE(timers_.WaitForTimers(1, Soon()));
  timers_.Advance(absl::Seconds(6));
  EXPECT_EQ(client->ReadReply().status, 504);
  EXPECT_TRUE(call->WaitUntilCancelled(Soon()));
}

TEST_F(ApiTest, TooManyOpenRequestsGet429) {
  RouterServer::Options options;
  options.max_open_requests = 1;
  Start(std::move(options));
  auto client = OpenStream(kChat, Hi());
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  const auto refusal = Post(kChat, Hi());
  EXPECT_EQ(refusal.status, 429);
  EXPECT_EQ(refusal.head.Get("Retry-After"), "1");
  call->Done(absl::OkStatus());
  EXPECT_EQ(client->ReadReply().status, 200);
  workers_[0]->Answer(Ids("ok"));
  PostJson(kChat, Hi());
}

TEST_F(ApiTest, ShutdownDrainsThenEndsTheRestWithAnErrorEvent) {
  Start();
  auto ends = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto first = workers_[0]->WaitForCall(0, Soon());
  auto hangs = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto second = workers_[0]->WaitForCall(1, Soon());
  ASSERT_NE(second, nullptr);
  first->Token(Ids("Hi", false)[0]);
  second->Token(Ids("Hi", false)[0]);
  const auto head = ends->ReadHead();
  ASSERT_TRUE(head.has_value());

  std::thread shutdown([this] { server_->Shutdown(absl::Seconds(2)); });
  // New requests are refused, and readiness says why.
  const absl::Time deadline = Soon();
  while (HttpGet(server_->port(), "/readyz").status != 503 &&
         absl::Now() < deadline) {
  }
  EXPECT_THAT(HttpGet(server_->port(), "/readyz").body,
              HasSubstr("shutting down"));
  PostError(503, kChat, Hi());
  first->Done(absl::OkStatus());
  const auto ended = Events(ends->ReadBody(*head));
  EXPECT_EQ(ended.back(), "[DONE]");
  EXPECT_THAT(ended[ended.size() - 2], HasSubstr(R"("finish_reason":"stop")"));

  const auto cut = Events(hangs->ReadReply().body);
  ASSERT_GE(cut.size(), 2u);
  EXPECT_THAT(cut[cut.size() - 2],
              AllOf(HasSubstr(R"({"error":)"), HasSubstr("shutting down")));
  EXPECT_TRUE(second->WaitUntilCancelled(Soon()));
  ends.reset();
  hangs.reset();
  shutdown.join();
}

TEST_F(ApiTest, MetricsHaveTheNamesThatDashboardsKnow) {
  Start();
  const std::vector<int32_t> answer = Ids("ok");
  workers_[0]->Answer(answer);
  PostJson(kChat, Hi());
  const std::string vllm = R"({engine="0",model_name="demo"})";
  EXPECT_EQ(Metric("vllm:generation_tokens_total" + vllm),
            absl::StrCat(answer.size()));
  EXPECT_NE(Metric("vllm:prompt_tokens_total" + vllm), "0");
  EXPECT_EQ(
      Metric(
          R"(vllm:request_success_total{engine="0",finished_reason="stop",model_name="demo"})"),
      "1");
  for (const char* histogram :
       {"vllm:time_to_first_token_seconds", "vllm:e2e_request_latency_seconds",
        "vllm:request_queue_time_seconds", "vllm:request_prompt_tokens",
        "vllm:request_generation_tokens", "vllm:request_params_n"}) {
    EXPECT_EQ(Metric(absl::StrCat(histogram, "_count", vllm)), "1")
        << histogram;
  }
  EXPECT_EQ(Metric("vllm:inter_token_latency_seconds_count" + vllm),
            absl::StrCat(answer.size() - 1));
  EXPECT_EQ(Metric(R"(sglang:num_requests_total{model_name="demo"})"), "1");
  EXPECT_EQ(
      Metric(
          R"(http_requests_total{handler="/v1/chat/completions",method="POST",status="200"})"),
      "1");

  // A request that runs, one that waits, and a worker that is half full.
  AttentionWorkerInfo info = workers_[0]->info();
  info.state_bytes_used = 50;
  info.state_bytes_budget = 100;
  workers_[0]->SetInfo(info);
  EXPECT_EQ(Metric("vllm:kv_cache_usage_perc" + vllm), "0.5");
  EXPECT_EQ(Metric(R"(sglang:token_usage{model_name="demo"})"), "0.5");
  EXPECT_EQ(Metric("vllm:num_requests_running" + vllm), "0");
  EXPECT_EQ(Metric(R"(sglang:num_queue_reqs{model_name="demo"})"), "0");
}

TEST_F(ApiTest, GaugesCountWaitingAndRunningRequests) {
  Start();
  auto first = OpenStream(kChat, Hi(R"("stream":true)"));
  const auto running = workers_[0]->WaitForCall(0, Soon());
  auto second = OpenStream(kChat, Hi());
  ASSERT_NE(workers_[0]->WaitForCall(1, Soon()), nullptr);
  running->Token(5);
  ASSERT_TRUE(first->ReadHead().has_value());
  const std::string labels = R"({engine="0",model_name="demo"})";
  EXPECT_EQ(Metric("vllm:num_requests_running" + labels), "1");
  EXPECT_EQ(Metric("vllm:num_requests_waiting" + labels), "1");
}

TEST(RouterServerTest, RefusesToStartWithNumbersAndNames) {
  RouterServer::Options options;
  EXPECT_THAT(RouterServer::Start(options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("--attention-workers")));
  options.workers.push_back(std::make_shared<ScriptedAttentionClient>("w"));
  options.model_dir = "/nowhere";
  EXPECT_THAT(
      RouterServer::Start(options),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/config.json")));
}

}  // namespace
}  // namespace switchyard::router
