// The whole router but its workers: real HTTP over loopback, the demo model's
// tokenizer and template, attention workers that say what a test tells them.

#ifndef SWITCHYARD_TESTS_ROUTER_OPENAI_API_TEST_UTIL_H_
#define SWITCHYARD_TESTS_ROUTER_OPENAI_API_TEST_UTIL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/json.h"
#include "gtest/gtest.h"
#include "router/server.h"
#include "tests/testing/fake_timer_queue.h"
#include "tests/testing/raw_http_connection.h"
#include "tests/testing/scripted_attention_client.h"
#include "text/tokenizer.h"

namespace switchyard::router {

inline constexpr int32_t kEos = 1529;  // <|im_end|> of the demo model
inline constexpr char kChat[] = "/v1/chat/completions";
inline constexpr char kCompletions[] = "/v1/completions";

// Set for as long as a server runs: it looks at its workers.
inline constexpr size_t kServerTimers = 1;

// No test takes this long unless it fails.
absl::Time Soon();

// The data of SSE events, comments left out.
std::vector<std::string> Events(const std::string& body);

// The text of a stream's chunks, put together.
std::string StreamedContent(const std::vector<std::string>& events);

class ApiTest : public ::testing::Test {
 protected:
  ApiTest();

  // A server with `num_workers` scripted workers.
  void Start(RouterServer::Options options = {}, int num_workers = 1);

  std::vector<int32_t> Ids(const std::string& text, bool eos = true);

  testing::RawHttpConnection::Reply Post(const std::string& path,
                                         const std::string& body);
  // Expects 200.
  Json PostJson(const std::string& path, const std::string& body);
  // Expects an error object with that status; returns it.
  Json PostError(int status, const std::string& path, const std::string& body);

  // A chat request that says "Hi", with more `fields`.
  static std::string Hi(const std::string& fields = "");

  // A stream that has begun.
  std::unique_ptr<testing::RawHttpConnection> OpenStream(
      const std::string& path, const std::string& body);

  // The value in /metrics; "absent" without it.
  std::string Metric(const std::string& name_and_labels);

  std::unique_ptr<text::Tokenizer> tokenizer_;
  testing::FakeTimerQueue timers_;
  std::atomic<uint64_t> random_{0};
  std::vector<std::shared_ptr<testing::ScriptedAttentionClient>> workers_;
  std::unique_ptr<RouterServer> server_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_TESTS_ROUTER_OPENAI_API_TEST_UTIL_H_
