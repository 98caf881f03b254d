// A client that comes back goes on behind the last event that it had.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/raw_http_connection.h"

namespace switchyard::router {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ResumeTest : public ApiTest {
 protected:
  std::unique_ptr<testing::RawHttpConnection> Open(const std::string& body,
                                                   const std::string& headers) {
    auto client = testing::RawHttpConnection::Connect(server_->port());
    EXPECT_NE(client, nullptr);
    client->Request("POST", kChat, body, headers);
    return client;
  }
  testing::RawHttpConnection::Reply Ask(const std::string& body,
                                        const std::string& headers) {
    return Open(body, headers)->ReadReply();
  }
  // Whole events, with their ids.
  static std::vector<std::string> Blocks(const std::string& body) {
    std::vector<std::string> blocks = absl::StrSplit(body, "\n\n");
    if (!blocks.empty() && blocks.back().empty()) blocks.pop_back();
    return blocks;
  }
  static std::string IdOf(const std::string& block) {
    const std::vector<std::string> lines = absl::StrSplit(block, '\n');
    return lines[0].rfind("id: ", 0) == 0 ? lines[0].substr(4) : "";
  }
};

TEST_F(ResumeTest, EveryPlaceOfAStreamCanBeGoneOnFrom) {
  Start();
  workers_[0]->Answer(Ids("Mexico City is large"));
  const std::string body =
      Hi(R"("stream":true,"stream_options":{"include_usage":true})");
  const auto whole = Ask(body, "x-stream-resumable: 1\r\n");
  ASSERT_EQ(whole.status, 200);
  EXPECT_THAT(whole.head.text, HasSubstr("x-stream-id: "));
  const std::vector<std::string> blocks = Blocks(whole.body);
  ASSERT_GT(blocks.size(), 4u);
  EXPECT_EQ(blocks.back(), "data: [DONE]");
  // Another day, with other numbers drawn: only the id says what they were.
  timers_.Advance(absl::Hours(24));
  for (size_t had = 1; had < blocks.size(); ++had) {
    const std::string id = IdOf(blocks[had - 1]);
    ASSERT_FALSE(id.empty()) << blocks[had - 1];
    const auto rest = Ask(body, absl::StrCat("last-event-id: ", id, "\r\n"));
    ASSERT_EQ(rest.status, 200) << rest.body;
    EXPECT_EQ(
        Blocks(rest.body),
        std::vector<std::string>(
            blocks.begin() + static_cast<std::ptrdiff_t>(had), blocks.end()));
  }
}

TEST_F(ResumeTest, TheFirstRunsSeedAndCacheCount) {
  Start();
  const std::string body =
      Hi(R"("stream":true,"stream_options":{"include_usage":true})");
  const auto first = Open(body, "x-stream-resumable: 1\r\n");
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  const std::vector<int32_t> answer = Ids("Mexico City");
  call->set_cached_prompt_tokens(3);
  for (const int32_t id : answer) call->Token(id);
  call->Done(absl::OkStatus());
  const auto whole = first->ReadReply();

  const auto again = Open(
      body,
      absl::StrCat("last-event-id: ", IdOf(Blocks(whole.body)[0]), "\r\n"));
  const auto second = workers_[0]->WaitForCall(1, Soon());
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->request().sampling.seed, call->request().sampling.seed);
  second->set_cached_prompt_tokens(9);
  for (const int32_t id : answer) second->Token(id);
  second->Done(absl::OkStatus());
  const auto rest = again->ReadReply();
  EXPECT_THAT(whole.body, HasSubstr(rest.body));
  EXPECT_THAT(rest.body, HasSubstr(R"("cached_tokens":3)"));
}

TEST_F(ResumeTest, SeveralChoicesHaveTheirOwnPlaces) {
  Start();
  workers_[0]->Answer(Ids("Mexico City"));
  const std::string body = Hi(R"("stream":true,"n":2)");
  const auto whole = Ask(body, "x-stream-resumable: 1\r\n");
  const std::vector<std::string> blocks = Blocks(whole.body);
  ASSERT_GT(blocks.size(), 4u);
  const auto rest =
      Ask(body, absl::StrCat("last-event-id: ", IdOf(blocks[2]), "\r\n"));
  EXPECT_EQ(Blocks(rest.body),
            std::vector<std::string>(blocks.begin() + 3, blocks.end()));
}

TEST_F(ResumeTest, NobodyGetsIdsUnasked) {
  Start();
  workers_[0]->Answer(Ids("Mexico City"));
  const auto reply = Ask(Hi(R"("stream":true)"), "");
  EXPECT_THAT(reply.body, Not(HasSubstr("id: ")));
  EXPECT_THAT(reply.head.text, Not(HasSubstr("x-stream-id")));
}

TEST_F(ResumeTest, AnIdOfAnotherRequestIsRefused) {
  Start();
  workers_[0]->Answer(Ids("Mexico City"));
  const auto whole = Ask(Hi(R"("stream":true)"), "x-stream-resumable: 1\r\n");
  const std::string header =
      absl::StrCat("last-event-id: ", IdOf(Blocks(whole.body)[0]), "\r\n");
  const auto other = Ask(Hi(R"("stream":true,"top_p":0.5)"), header);
  EXPECT_EQ(other.status, 400);
  EXPECT_THAT(other.body, HasSubstr("another request"));
  const auto nonsense = Ask(Hi(R"("stream":true)"), "last-event-id: 17\r\n");
  EXPECT_EQ(nonsense.status, 400);
  EXPECT_THAT(nonsense.body, HasSubstr("Last-Event-ID"));
}

}  // namespace
}  // namespace switchyard::router
