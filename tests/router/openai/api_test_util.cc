#include "tests/router/openai/api_test_util.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "tests/testing/fixture_path.h"

namespace switchyard::router {

using testing::HttpGet;
using testing::HttpPost;
using testing::ModelPath;
using testing::RawHttpConnection;
using testing::ScriptedAttentionClient;

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

std::vector<std::string> Events(const std::string& body) {
  std::vector<std::string> events;
  for (absl::string_view event : absl::StrSplit(body, "\n\n")) {
    if (absl::ConsumePrefix(&event, "data: ")) {
      events.emplace_back(event);
    }
  }
  return events;
}

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

ApiTest::ApiTest() {
  auto tokenizer = text::Tokenizer::Load(ModelPath("demo"));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  tokenizer_ = *std::move(tokenizer);
}

void ApiTest::Start(RouterServer::Options options, int num_workers) {
  options.model_dir = ModelPath("demo");
  for (int i = 0; i < num_workers; ++i) {
    workers_.push_back(
        std::make_shared<ScriptedAttentionClient>(absl::StrCat("worker-", i)));
    options.workers.push_back(workers_.back());
  }
  options.timers = &timers_;
  options.random = [this] { return ++random_; };
  auto server = RouterServer::Start(std::move(options));
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
}

std::vector<int32_t> ApiTest::Ids(const std::string& text, bool eos) {
  std::vector<int32_t> ids = tokenizer_->Encode(text);
  if (eos) ids.push_back(kEos);
  return ids;
}

RawHttpConnection::Reply ApiTest::Post(const std::string& path,
                                       const std::string& body) {
  return HttpPost(server_->port(), path, body);
}

Json ApiTest::PostJson(const std::string& path, const std::string& body) {
  const auto reply = Post(path, body);
  EXPECT_EQ(reply.status, 200) << reply.body;
  return ParseJson(reply.body).value_or(Json::object());
}

Json ApiTest::PostError(int status, const std::string& path,
                        const std::string& body) {
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

std::string ApiTest::Hi(const std::string& fields) {
  return absl::StrCat(
      R"({"model":"m","messages":[{"role":"user","content":"Hi"}])",
      fields.empty() ? "" : ",", fields, "}");
}

std::unique_ptr<RawHttpConnection> ApiTest::OpenStream(
    const std::string& path, const std::string& body) {
  auto client = RawHttpConnection::Connect(server_->port());
  EXPECT_TRUE(client->Request("POST", path, body));
  return client;
}

std::string ApiTest::Metric(const std::string& name_and_labels) {
  const std::string body = HttpGet(server_->port(), "/metrics").body;
  for (absl::string_view line : absl::StrSplit(body, '\n')) {
    if (absl::ConsumePrefix(&line, name_and_labels + " ")) {
      return std::string(line);
    }
  }
  return "absent";
}

}  // namespace switchyard::router
