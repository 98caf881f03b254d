#include "expert_worker/server.h"

#include <atomic>
#include <fstream>
#include <future>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/amx_kernels.h"
#include "proto/expert.pb.h"
#include "rpc/channel.h"
#include "tests/rpc/raw_stream.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/http_client.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::expert_worker {
namespace {

using ::switchyard::testing::HttpCall;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

ServerOptions DemoOptions() {
  ServerOptions options;
  options.model_dir = testing::ModelPath("demo");
  options.host = "127.0.0.1";
  options.threads = 1;
  return options;
}

absl::Status StartAndLoad(ServerOptions options) {
  absl::StatusOr<std::unique_ptr<Server>> server =
      Server::Start(std::move(options));
  if (!server.ok()) return server.status();
  return (*server)->WaitUntilLoaded(Soon());
}

TEST(ExpertServerTest, LoadsAndServesAndStops) {
  ServerOptions options = DemoOptions();
  options.slice = "2/4";
  options.metrics_port = 0;
  auto server = Server::Start(options);
  ASSERT_THAT(server, IsOk());
  EXPECT_GT((*server)->port(), 0);
  const auto metrics = HttpCall((*server)->metrics_port(), "GET", "/metrics");
  ASSERT_THAT(metrics, IsOk());
  EXPECT_THAT(metrics->body,
              HasSubstr(absl::StrCat("switchyard_kernels_info{kernels=\"",
                                     kernels::DescribeKernels(), "\"} 1")));
  ASSERT_THAT((*server)->WaitUntilLoaded(Soon()), IsOk());
  EXPECT_EQ((*server)->state(), ServerState::kServing);
  (*server)->Shutdown();
  EXPECT_EQ((*server)->state(), ServerState::kDraining);
  (*server)->Shutdown();
}

TEST(ExpertServerTest, StopsWhileLoading) {
  auto server = Server::Start(DemoOptions());
  ASSERT_THAT(server, IsOk());
  (*server)->Shutdown();
}

TEST(ExpertServerTest, BadOptionsAreRefusedBeforeListening) {
  ServerOptions options = DemoOptions();
  options.slice = "1/2";
  options.experts = "3";
  EXPECT_THAT(Server::Start(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options = DemoOptions();
  options.port = 70000;
  EXPECT_THAT(Server::Start(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("70000")));
  options = DemoOptions();
  options.max_rows_in_flight = kMaxRowsInFlight + 1;
  EXPECT_THAT(Server::Start(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options = DemoOptions();
  options.model_dir = "";
  EXPECT_THAT(Server::Start(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ExpertServerTest, ATakenPortIsNamed) {
  auto first = Server::Start(DemoOptions());
  ASSERT_THAT(first, IsOk());
  ServerOptions options = DemoOptions();
  options.port = (*first)->port();
  EXPECT_THAT(Server::Start(options),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr(absl::StrCat(options.port))));
}

TEST(ExpertServerTest, WhatCannotBeLoadedIsReported) {
  ServerOptions options = DemoOptions();
  options.slice = "5/4";
  EXPECT_THAT(StartAndLoad(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("5/4")));
  options = DemoOptions();
  options.experts = "0-99";
  EXPECT_THAT(StartAndLoad(options),
              StatusIs(absl::StatusCode::kInvalidArgument));
  options = DemoOptions();
  options.model_dir = "/nonexistent";
  std::promise<void> told;
  options.on_load_failed = [&told] { told.set_value(); };
  auto server = Server::Start(options);
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT((*server)->WaitUntilLoaded(Soon()),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ((*server)->state(), ServerState::kFailed);
  EXPECT_EQ(told.get_future().wait_until(absl::ToChronoTime(Soon())),
            std::future_status::ready);
  // It says why to those who ask.
  rpc::RawStream stream(
      rpc::NewChannel(absl::StrCat("127.0.0.1:", (*server)->port())),
      "/switchyard.v1.Expert/Connect");
  v1::ExpertRequest hello;
  hello.mutable_hello()->set_protocol_version(2);
  stream.Write(hello.SerializeAsString());
  EXPECT_FALSE(stream.Read().has_value());
  EXPECT_THAT(stream.Finish(), StatusIs(absl::StatusCode::kUnavailable,
                                        HasSubstr("/nonexistent")));
}

TEST(ExpertServerTest, ChecksumsAreVerifiedWhenAskedFor) {
  ServerOptions options = DemoOptions();
  options.verify_checksums = true;
  const testing::TempDir dir;
  dir.Write("SHA256SUMS",
            absl::StrCat(std::string(64, '0'), "  config.json\n"));
  dir.Write("config.json", "{}");
  options.model_dir = dir.path();
  EXPECT_THAT(StartAndLoad(options), StatusIs(absl::StatusCode::kDataLoss));
}

}  // namespace
}  // namespace switchyard::expert_worker
