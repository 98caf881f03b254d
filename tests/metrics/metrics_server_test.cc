#include <atomic>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "tests/testing/http_client.h"
#include "tests/testing/matchers.h"

namespace switchyard::metrics {
namespace {

using ::switchyard::testing::HttpCall;
using ::switchyard::testing::HttpReply;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

class MetricsServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    registry_->AddCounter("a_total", "A.")->Increment(3);
    auto server = MetricsServer::Start("127.0.0.1", 0, registry_.get(), [this] {
      return MetricsServer::Readiness{
          ready_, ready_ ? R"({"ready":true})" : R"({"ready":false})"};
    });
    ASSERT_THAT(server, IsOk());
    server_ = *std::move(server);
  }

  HttpReply Call(absl::string_view method, absl::string_view path) {
    const auto reply = HttpCall(server_->port(), method, path);
    EXPECT_THAT(reply, IsOk());
    return reply.value_or(HttpReply());
  }

  const std::unique_ptr<Registry> registry_ = Registry::Create();
  std::atomic<bool> ready_{false};
  std::unique_ptr<MetricsServer> server_;
};

TEST_F(MetricsServerTest, ServesMetrics) {
  EXPECT_GT(server_->port(), 0);
  const HttpReply reply = Call("GET", "/metrics");
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.headers,
              HasSubstr("Content-Type: text/plain; version=0.0.4"));
  EXPECT_EQ(reply.body, registry_->Expose());
  EXPECT_THAT(reply.body, HasSubstr("a_total 3\n"));
}

TEST_F(MetricsServerTest, LiveAndReadyAreTwoThings) {
  EXPECT_EQ(Call("GET", "/livez").status, 200);
  HttpReply reply = Call("GET", "/readyz");
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.headers, HasSubstr("Content-Type: application/json"));
  EXPECT_EQ(reply.body, R"({"ready":false})");
  ready_ = true;
  reply = Call("GET", "/readyz");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, R"({"ready":true})");
}

TEST_F(MetricsServerTest, OtherPathsAndMethods) {
  EXPECT_EQ(Call("GET", "/").status, 404);
  EXPECT_EQ(Call("GET", "/metricsx").status, 404);
  EXPECT_EQ(Call("GET", "/metrics/x").status, 404);
  EXPECT_EQ(Call("GET", "/../etc/passwd").status / 100, 4);
  EXPECT_EQ(Call("GET", "/metrics?x=y").status, 200);
  EXPECT_EQ(Call("POST", "/metrics").status, 405);
  const HttpReply head = Call("HEAD", "/livez");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.body, "");
}

TEST_F(MetricsServerTest, PortInUseIsNamed) {
  const auto second =
      MetricsServer::Start("127.0.0.1", server_->port(), registry_.get(),
                           [] { return MetricsServer::Readiness(); });
  EXPECT_THAT(second, StatusIs(absl::StatusCode::kUnavailable,
                               AllOf(HasSubstr(absl::StrCat(server_->port())),
                                     HasSubstr("in use"))));
  EXPECT_EQ(Call("GET", "/livez").status, 200);  // the first goes on
}

TEST_F(MetricsServerTest, AddressesThatAreNotOurs) {
  // 203.0.113.0/24 is for documentation: nobody has it.
  EXPECT_THAT(
      MetricsServer::Start("203.0.113.1", 0, registry_.get(),
                           [] { return MetricsServer::Readiness(); }),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("203.0.113.1:0")));
}

TEST_F(MetricsServerTest, FreesThePortAtItsEnd) {
  const int port = server_->port();
  server_.reset();
  EXPECT_THAT(HttpCall(port, "GET", "/livez"),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(MetricsServer::Start("127.0.0.1", port, registry_.get(),
                                   [] { return MetricsServer::Readiness(); }),
              IsOk());
}

}  // namespace
}  // namespace switchyard::metrics
