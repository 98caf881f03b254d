// Whom the client takes rows to, in which version, and what it hears of
// holdings at and behind the handshake.

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/client/grpc_expert_client_fixture.h"

namespace switchyard::attention_worker {
namespace {

struct BadWelcome {
  const char* name;
  void (*spoil)(v1::Welcome*);
  const char* text;
};
class BadWelcomeTest : public GrpcExpertClientTest,
                       public ::testing::WithParamInterface<BadWelcome> {};

TEST_P(BadWelcomeTest, IsRefusedHereWithBothValues) {
  ScriptedExpertServer server([](ScriptedExpertServer::Stream* stream) {
    v1::ExpertRequest request;
    stream->Read(&request);
    v1::ExpertReply reply = GoodWelcome();
    GetParam().spoil(reply.mutable_welcome());
    stream->Write(reply);
    ReadToTheEnd(stream);
    return grpc::Status();
  });
  Connect(Options(server.address()));
  EXPECT_TRUE(Eventually([this] {
    return absl::StrContains(client_->health().message(), GetParam().text);
  })) << client_->health();
  EXPECT_NE(client_->health().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(client_->holdings().empty());
}

INSTANTIATE_TEST_SUITE_P(
    All, BadWelcomeTest,
    ::testing::Values(
        BadWelcome{"Version",
                   [](v1::Welcome* w) { w->set_protocol_version(4); },
                   "protocol version differs: the expert worker has 4, this "
                   "attention worker has 2 to 3"},
        BadWelcome{"Fingerprint",
                   [](v1::Welcome* w) { w->set_model_fingerprint("beef"); },
                   "has beef, this attention worker has f00d"},
        BadWelcome{"WeightFormat",
                   [](v1::Welcome* w) { w->clear_weight_format(); },
                   "WEIGHT_FORMAT_UNSPECIFIED"},
        BadWelcome{"Layers", [](v1::Welcome* w) { w->set_num_layers(4); },
                   "has 4, this attention worker has 3"},
        BadWelcome{"Experts", [](v1::Welcome* w) { w->set_num_experts(15); },
                   "has 15, this attention worker has 16"},
        BadWelcome{"ShortBitmap",
                   [](v1::Welcome* w) { w->mutable_holdings()->pop_back(); },
                   "5"},
        BadWelcome{"NoRows",
                   [](v1::Welcome* w) { w->set_max_rows_in_flight(0); },
                   "max_rows_in_flight is 0"}),
    [](const auto& info) { return info.param.name; });

// Builds of before version 3 know of one version, and refuse all others.
TEST_F(GrpcExpertClientTest, GreetsAnOlderBuildInItsOwnVersion) {
  std::atomic<int> refused = 0;
  ScriptedExpertServer server([&](ScriptedExpertServer::Stream* stream) {
    v1::ExpertRequest request;
    stream->Read(&request);
    if (request.hello().protocol_version() != 2) {
      ++refused;
      return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                          "protocol version differs: the attention worker has "
                          "3, this expert worker has 2");
    }
    stream->Write(GoodWelcome());
    ReadToTheEnd(stream);
    return grpc::Status();
  });
  GrpcExpertClientOptions options = Options(server.address());
  options.refused_backoff = absl::Hours(1);  // not waited for
  Connect(options);
  EXPECT_TRUE(WaitUntilConnected());
  EXPECT_EQ(refused, 1);
}

TEST_F(GrpcExpertClientTest, AServerThatRefusesEveryVersionIsLeftAlone) {
  std::atomic<int> refused = 0;
  ScriptedExpertServer server([&](ScriptedExpertServer::Stream* stream) {
    v1::ExpertRequest request;
    stream->Read(&request);
    ++refused;
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                        "protocol version differs");
  });
  GrpcExpertClientOptions options = Options(server.address());
  options.refused_backoff = absl::Milliseconds(1);
  Connect(options);
  // Both greetings, again and again: it may be replaced.
  EXPECT_TRUE(Eventually([&] { return refused >= 4; }));
  EXPECT_EQ(client_->health().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(GrpcExpertClientTest, HoldingsChangeByWhatIsTold) {
  ScriptedExpertServer server([](ScriptedExpertServer::Stream* stream) {
    v1::ExpertRequest request;
    stream->Read(&request);
    v1::ExpertReply reply = GoodWelcome();
    reply.mutable_welcome()->set_protocol_version(3);
    stream->Write(reply);
    v1::ExpertReply change;
    change.mutable_holdings_change()->add_removed(16 + 2);
    stream->Write(change);
    ReadToTheEnd(stream);
    return grpc::Status();
  });
  Connect(Options(server.address()));
  ASSERT_TRUE(WaitUntilConnected());
  EXPECT_TRUE(Eventually([this] {
    return client_->holdings().size() == 47 &&
           !client_->holdings().Contains(1, 2);
  }));
}

TEST_F(GrpcExpertClientTest, AnImpossibleChangeOfHoldingsEndsTheStream) {
  const struct {
    uint32_t version;
    std::vector<uint32_t> added;
    std::vector<uint32_t> removed;
    const char* text;
  } cases[] = {
      {2, {}, {5}, "where there can be none"},
      {3, {5}, {}, "held already"},
      {3, {}, {48}, "pair 48 of 48"},
      {3, {}, {5, 5}, "not held"},
  };
  for (const auto& test : cases) {
    ScriptedExpertServer server([&](ScriptedExpertServer::Stream* stream) {
      v1::ExpertRequest request;
      stream->Read(&request);
      v1::ExpertReply reply = GoodWelcome();
      reply.mutable_welcome()->set_protocol_version(test.version);
      stream->Write(reply);
      v1::ExpertReply bad;
      v1::HoldingsChange* change = bad.mutable_holdings_change();
      change->mutable_added()->Add(test.added.begin(), test.added.end());
      change->mutable_removed()->Add(test.removed.begin(), test.removed.end());
      stream->Write(bad);
      ReadToTheEnd(stream);
      return grpc::Status();
    });
    Connect(Options(server.address()));
    EXPECT_TRUE(Eventually([&] {
      return absl::StrContains(client_->health().message(), test.text);
    })) << client_->health();
    client_ = nullptr;
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
