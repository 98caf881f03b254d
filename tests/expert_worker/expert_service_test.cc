// The service as its peers see it: bytes on a stream.

#include "expert_worker/service/expert_service.h"

#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/expert.pb.h"
#include "rpc/channel.h"
#include "tests/rpc/raw_stream.h"
#include "tests/testing/fake_expert_client.h"
#include "tests/testing/fake_expert_worker.h"
#include "tests/testing/matchers.h"

namespace switchyard::expert_worker {
namespace {

using ::switchyard::testing::FakeExpertRow;
using ::switchyard::testing::FakeExpertWorker;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kHidden = 8;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

// A stream that is at the hello.
class Peer {
 public:
  explicit Peer(const FakeExpertWorker& worker)
      : stream_(rpc::NewChannel(worker.address()),
                "/switchyard.v1.Expert/Connect") {}

  bool WriteBytes(const std::string& bytes) { return stream_.Write(bytes); }
  bool Write(const v1::ExpertRequest& request) {
    return stream_.Write(request.SerializeAsString());
  }
  std::optional<v1::ExpertReply> Read() {
    const std::optional<std::string> bytes = stream_.Read();
    if (!bytes.has_value()) return std::nullopt;
    v1::ExpertReply reply;
    EXPECT_TRUE(reply.ParseFromString(*bytes));
    return reply;
  }
  // The result after this, or one that has code 99.
  v1::Result ReadResult() {
    const std::optional<v1::ExpertReply> reply = Read();
    if (reply.has_value() && reply->has_result()) return reply->result();
    ADD_FAILURE() << "no result";
    v1::Result none;
    none.set_code(99);
    return none;
  }
  // Reads to the end.
  absl::Status End() {
    while (Read().has_value()) {
    }
    return stream_.Finish();
  }
  void Cancel() { stream_.Cancel(); }

  bool Greet(uint32_t newest_version = 2) {
    v1::ExpertRequest hello = Hello();
    hello.mutable_hello()->set_protocol_version(newest_version);
    hello.mutable_hello()->set_oldest_protocol_version(2);
    Write(hello);
    const std::optional<v1::ExpertReply> reply = Read();
    if (!reply.has_value() || !reply->has_welcome()) return false;
    welcome = reply->welcome();
    return true;
  }

  static v1::ExpertRequest Hello() {
    v1::ExpertRequest request;
    v1::Hello* hello = request.mutable_hello();
    hello->set_protocol_version(2);
    hello->set_model_fingerprint("f00d");
    hello->set_weight_format(v1::WEIGHT_FORMAT_CHECKPOINT_F32);
    hello->set_activation_format(v1::ACTIVATION_FORMAT_F32);
    hello->set_instance_id("test");
    return request;
  }

  // `num_rows` rows, all through `expert`.
  static v1::ExpertRequest Compute(uint64_t sequence, int layer, int expert,
                                   int num_rows) {
    v1::ExpertRequest request;
    v1::Compute* compute = request.mutable_compute();
    compute->set_sequence(sequence);
    compute->set_layer(layer);
    compute->set_num_rows(num_rows);
    const std::vector<float> rows = Rows(sequence, num_rows);
    compute->set_activations(rows.data(), rows.size() * sizeof(float));
    v1::ExpertRun* run = compute->add_runs();
    run->set_expert(expert);
    for (int row = 0; row < num_rows; ++row) run->add_rows(row);
    return request;
  }
  static std::string Outputs(uint64_t sequence, int layer, int expert,
                             int num_rows) {
    const std::vector<float> rows = Rows(sequence, num_rows);
    std::vector<float> out(rows.size());
    for (int row = 0; row < num_rows; ++row) {
      FakeExpertRow(layer, expert,
                    absl::MakeConstSpan(rows).subspan(row * kHidden, kHidden),
                    absl::MakeSpan(out).subspan(row * kHidden, kHidden));
    }
    return {reinterpret_cast<const char*>(out.data()),
            out.size() * sizeof(float)};
  }

  v1::Welcome welcome;

 private:
  static std::vector<float> Rows(uint64_t sequence, int num_rows) {
    std::vector<float> rows;
    for (int i = 0; i < num_rows * kHidden; ++i) {
      rows.push_back(static_cast<float>(sequence * 1000 + i));
    }
    return rows;
  }

  rpc::RawStream stream_;
};

TEST(ExpertServiceTest, WelcomesAndComputes) {
  FakeExpertWorker worker({});
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  EXPECT_EQ(peer.welcome.model_fingerprint(), "f00d");
  EXPECT_EQ(peer.welcome.num_layers(), 3);
  EXPECT_EQ(peer.welcome.num_experts(), 16);
  EXPECT_EQ(peer.welcome.holdings(), worker.holdings().ToBitmap());
  EXPECT_EQ(peer.welcome.max_rows_in_flight(), 64);
  EXPECT_EQ(worker.metrics().connected_streams->value(), 1);
  for (uint64_t sequence = 1; sequence < 20; ++sequence) {
    const int expert = static_cast<int>(sequence % 16);
    ASSERT_TRUE(peer.Write(Peer::Compute(sequence, 2, expert, 3)));
    const v1::Result result = peer.ReadResult();
    EXPECT_EQ(result.sequence(), sequence);
    EXPECT_EQ(result.code(), 0) << result.message();
    EXPECT_EQ(result.outputs(), Peer::Outputs(sequence, 2, expert, 3));
  }
}

TEST(ExpertServiceTest, ManyRequestsInFlightAreAllAnswered) {
  FakeExpertWorker worker({});
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  worker.engine().Hold();
  for (uint64_t sequence = 1; sequence <= 32; ++sequence) {
    ASSERT_TRUE(
        peer.Write(Peer::Compute(sequence, sequence % 3, sequence % 16, 2)));
  }
  worker.engine().Release();
  std::vector<bool> answered(33, false);
  for (int i = 0; i < 32; ++i) {
    const v1::Result result = peer.ReadResult();
    const uint64_t sequence = result.sequence();
    ASSERT_LE(sequence, 32);
    EXPECT_FALSE(answered[sequence]);
    answered[sequence] = true;
    EXPECT_EQ(result.outputs(),
              Peer::Outputs(sequence, sequence % 3, sequence % 16, 2));
  }
}

TEST(ExpertServiceTest, AnotherModelNeverGetsIn) {
  FakeExpertWorker worker({});
  Peer peer(worker);
  v1::ExpertRequest hello = Peer::Hello();
  hello.mutable_hello()->set_model_fingerprint("beef");
  peer.Write(hello);
  EXPECT_THAT(peer.End(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("beef"), HasSubstr("f00d"))));
  EXPECT_EQ(worker.metrics()
                .refused_handshakes[static_cast<size_t>(Refusal::kFingerprint)]
                ->value(),
            1);
}

TEST(ExpertServiceTest, RefusesWhileLoading) {
  FakeExpertWorker::Options options;
  options.serving = false;
  FakeExpertWorker worker(options);
  {
    Peer peer(worker);
    peer.Write(Peer::Hello());
    EXPECT_THAT(peer.End(),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("loading")));
  }
  worker.SetServing();
  Peer peer(worker);
  EXPECT_TRUE(peer.Greet());
}

TEST(ExpertServiceTest, AStreamWithoutHelloIsEnded) {
  FakeExpertWorker::Options options;
  options.connection.hello_timeout = absl::Milliseconds(50);
  FakeExpertWorker worker(options);
  Peer peer(worker);
  EXPECT_THAT(peer.End(), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                   HasSubstr("no hello")));
}

TEST(ExpertServiceTest, WhatBreaksTheContractEndsTheStream) {
  FakeExpertWorker worker({});
  // 0xff...: a field number with a varint that never ends.
  const std::string garbage(11, '\xff');
  {
    Peer peer(worker);
    peer.WriteBytes(garbage);
    EXPECT_THAT(peer.End(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("not an ExpertRequest")));
  }
  {
    Peer peer(worker);
    peer.WriteBytes("");
    EXPECT_THAT(peer.End(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("not a hello")));
  }
  {
    Peer peer(worker);
    peer.Write(Peer::Compute(1, 0, 0, 1));
    EXPECT_THAT(peer.End(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("not a hello")));
  }
  {
    Peer peer(worker);
    ASSERT_TRUE(peer.Greet());
    peer.WriteBytes(garbage);
    EXPECT_THAT(peer.End(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("not an ExpertRequest")));
  }
  {
    Peer peer(worker);
    ASSERT_TRUE(peer.Greet());
    peer.Write(Peer::Hello());
    EXPECT_THAT(peer.End(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("second hello")));
  }
  {
    Peer peer(worker);
    ASSERT_TRUE(peer.Greet());
    worker.engine().Hold();
    peer.Write(Peer::Compute(1, 0, 0, 1));
    peer.Write(Peer::Compute(1, 0, 0, 1));
    EXPECT_THAT(peer.End(), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("sequence 1")));
    worker.engine().Release();
  }
  // None of them hurt it.
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  peer.Write(Peer::Compute(1, 0, 0, 1));
  EXPECT_EQ(peer.ReadResult().outputs(), Peer::Outputs(1, 0, 0, 1));
}

TEST(ExpertServiceTest, ARequestWithWrongSizesIsAnsweredAndTheStreamGoesOn) {
  FakeExpertWorker worker({});
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  v1::ExpertRequest bad = Peer::Compute(5, 0, 0, 2);
  bad.mutable_compute()->set_num_rows(3);
  peer.Write(bad);
  const v1::Result result = peer.ReadResult();
  EXPECT_EQ(result.sequence(), 5);
  EXPECT_EQ(result.code(), 3);  // INVALID_ARGUMENT
  EXPECT_THAT(result.message(),
              HasSubstr("64 bytes of activations, but 3 rows of 8 "));
  peer.Write(Peer::Compute(6, 0, 0, 2));
  EXPECT_EQ(peer.ReadResult().code(), 0);
}

TEST(ExpertServiceTest, AnExpertThatIsNotHeldIsNotFound) {
  FakeExpertWorker::Options options;
  options.holdings = model::ExpertSet(3, 16);
  options.holdings.Insert(1, 4);
  FakeExpertWorker worker(options);
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  peer.Write(Peer::Compute(1, 1, 5, 1));
  const v1::Result result = peer.ReadResult();
  EXPECT_EQ(result.code(), 5);  // NOT_FOUND
  EXPECT_THAT(result.message(), HasSubstr("experts 5 of layer 1"));
  peer.Write(Peer::Compute(2, 1, 4, 1));
  EXPECT_EQ(peer.ReadResult().code(), 0);
}

TEST(ExpertServiceTest, MoreRowsThanAgreedAreRefused) {
  FakeExpertWorker worker({});  // 64 rows
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  worker.engine().Hold();
  peer.Write(Peer::Compute(1, 0, 0, 60));
  peer.Write(Peer::Compute(2, 0, 0, 5));
  const v1::Result refused = peer.ReadResult();
  EXPECT_EQ(refused.sequence(), 2);
  EXPECT_EQ(refused.code(), 8);  // RESOURCE_EXHAUSTED
  worker.engine().Release();
  EXPECT_EQ(peer.ReadResult().sequence(), 1);
  peer.Write(Peer::Compute(3, 0, 0, 64));
  EXPECT_EQ(peer.ReadResult().code(), 0);
}

TEST(ExpertServiceTest, AFullQueueRefusesAndRecovers) {
  FakeExpertWorker::Options options;
  options.max_queue_bytes = 2 * 2 * kHidden * sizeof(float);  // two rows
  FakeExpertWorker worker(options);
  Peer peer(worker);
  Peer other(worker);
  ASSERT_TRUE(peer.Greet());
  ASSERT_TRUE(other.Greet());
  worker.engine().Hold();
  peer.Write(Peer::Compute(1, 0, 0, 2));
  ASSERT_TRUE(worker.engine().WaitUntilHeld(Soon()));
  other.Write(Peer::Compute(1, 0, 0, 1));
  const v1::Result refused = other.ReadResult();
  EXPECT_EQ(refused.code(), 8);  // RESOURCE_EXHAUSTED
  EXPECT_THAT(refused.message(), HasSubstr("queue holds"));
  worker.engine().Release();
  EXPECT_EQ(peer.ReadResult().code(), 0);
}

TEST(ExpertServiceTest, AnExpiredRequestIsAnsweredNotComputed) {
  FakeExpertWorker worker({});
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  worker.engine().Hold();
  peer.Write(Peer::Compute(1, 0, 0, 1));
  ASSERT_TRUE(worker.engine().WaitUntilHeld(Soon()));
  v1::ExpertRequest late = Peer::Compute(2, 1, 0, 1);
  late.mutable_compute()->set_timeout_micros(1);
  peer.Write(late);
  // Answered: the late one has been read from the stream.
  peer.Write(Peer::Compute(3, 0, 0, 64));
  EXPECT_EQ(peer.ReadResult().code(), 8);
  // It came in before this, so it has expired then.
  const absl::Time expired = absl::Now() + absl::Microseconds(1);
  while (absl::Now() < expired) {
  }
  worker.engine().Release();
  EXPECT_EQ(peer.ReadResult().sequence(), 1);
  const v1::Result result = peer.ReadResult();
  EXPECT_EQ(result.sequence(), 2);
  EXPECT_EQ(result.code(), 4);  // DEADLINE_EXCEEDED
  EXPECT_EQ(worker.engine().num_batches(), 1);
}

TEST(ExpertServiceTest, AClientThatLeavesIsForgotten) {
  FakeExpertWorker worker({});
  {
    Peer peer(worker);
    ASSERT_TRUE(peer.Greet());
    worker.engine().Hold();
    peer.Write(Peer::Compute(1, 0, 0, 1));
    ASSERT_TRUE(worker.engine().WaitUntilHeld(Soon()));
    peer.Write(Peer::Compute(2, 1, 0, 1));
  }
  const absl::Time deadline = Soon();
  while (worker.metrics().connected_streams->value() > 0 &&
         absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(worker.metrics().connected_streams->value(), 0);
  worker.engine().Release();
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  peer.Write(Peer::Compute(1, 0, 0, 1));
  EXPECT_EQ(peer.ReadResult().code(), 0);
  // Its second request, another layer's, was dropped.
  EXPECT_EQ(worker.engine().num_batches(), 2);
}

// A client that asks and never listens: the worker stops reading from it, so
// its memory is bounded, and gives it up.
TEST(ExpertServiceTest, AClientThatTakesNothingIsGivenUp) {
  FakeExpertWorker::Options options;
  options.identity.hidden_size = 1 << 16;  // 256 KiB an output row
  options.identity.max_rows_in_flight = 1000;
  options.max_queue_bytes = int64_t{256} << 20;
  options.connection.max_unsent_bytes = 1 << 20;
  options.connection.stalled_write_timeout = absl::Milliseconds(300);
  FakeExpertWorker worker(options);
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  v1::ExpertRequest request;
  v1::Compute* compute = request.mutable_compute();
  compute->set_num_rows(1);
  compute->set_activations(std::string((1 << 16) * sizeof(float), '\0'));
  for (int expert = 0; expert < 16; ++expert) {
    v1::ExpertRun* run = compute->add_runs();
    run->set_expert(expert);
    run->add_rows(0);
  }
  // Replies of 4 MiB: the client's flow control lets about 1 MiB through.
  int written = 0;
  while (written < 1000) {
    compute->set_sequence(static_cast<uint64_t>(written));
    if (!peer.Write(request)) break;
    ++written;
  }
  EXPECT_LT(written, 1000);
  // Stopped reading: only a few of the requests ever reached the engine.
  EXPECT_LT(worker.engine().num_batches(), 100);
}

TEST(ExpertServiceTest, TellsWhatIsHeldNow) {
  FakeExpertWorker worker({});
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  model::ExpertSet holdings(3, 16);
  holdings.Insert(1, 2);
  worker.service().SetHoldings(holdings);
  const std::optional<v1::ExpertReply> reply = peer.Read();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->holdings().holdings(), holdings.ToBitmap());
  // Advertised is not the same as there: rows on their way are computed.
  peer.Write(Peer::Compute(1, 0, 0, 2));
  EXPECT_EQ(peer.ReadResult().outputs(), Peer::Outputs(1, 0, 0, 2));
  Peer newcomer(worker);
  newcomer.Write(Peer::Hello());
  const std::optional<v1::ExpertReply> welcome = newcomer.Read();
  ASSERT_TRUE(welcome.has_value());
  EXPECT_EQ(welcome->welcome().holdings(), holdings.ToBitmap());
}

TEST(ExpertServiceTest, TellsEachPeerOfHoldingsInItsOwnVersion) {
  FakeExpertWorker worker({});
  Peer older(worker);
  Peer newer(worker);
  Peer later(worker);
  ASSERT_TRUE(older.Greet(2));
  ASSERT_TRUE(newer.Greet(3));
  ASSERT_TRUE(later.Greet(4));
  EXPECT_EQ(older.welcome.protocol_version(), 2u);
  EXPECT_EQ(newer.welcome.protocol_version(), 3u);
  EXPECT_EQ(later.welcome.protocol_version(), 3u);
  model::ExpertSet holdings =
      model::ExpertSet::FromBitmap(3, 16, older.welcome.holdings()).value();
  holdings.Erase(1, 2);
  worker.service().SetHoldings(holdings);
  std::optional<v1::ExpertReply> reply = older.Read();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->holdings().holdings(), holdings.ToBitmap());
  for (Peer* peer : {&newer, &later}) {
    reply = peer->Read();
    ASSERT_TRUE(reply.has_value());
    EXPECT_THAT(reply->holdings_change().removed(), ElementsAre(16 + 2));
    EXPECT_THAT(reply->holdings_change().added(), IsEmpty());
  }
}

TEST(ExpertServiceTest, DrainAnswersWhatIsInFlightThenEndsTheStreams) {
  FakeExpertWorker worker({});
  Peer busy(worker);
  Peer idle(worker);
  ASSERT_TRUE(busy.Greet());
  ASSERT_TRUE(idle.Greet());
  worker.engine().Hold();
  busy.Write(Peer::Compute(1, 0, 0, 2));
  ASSERT_TRUE(worker.engine().WaitUntilHeld(Soon()));
  std::future<void> drained =
      std::async(std::launch::async, [&] { worker.service().Drain(Soon()); });
  // Both hear that nothing is held any more; the idle one is ended.
  std::optional<v1::ExpertReply> reply = idle.Read();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->holdings().holdings(), std::string(6, '\0'));  // 3 * 16 bits
  EXPECT_THAT(idle.End(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("draining")));
  reply = busy.Read();
  ASSERT_TRUE(reply.has_value());
  EXPECT_TRUE(reply->has_holdings());
  // Sent before the client had heard.
  busy.Write(Peer::Compute(2, 1, 0, 1));
  Peer newcomer(worker);
  newcomer.Write(Peer::Hello());
  EXPECT_THAT(newcomer.End(), StatusIs(absl::StatusCode::kUnavailable));
  worker.engine().Release();
  v1::Result result = busy.ReadResult();
  EXPECT_EQ(result.sequence(), 1);
  EXPECT_EQ(result.outputs(), Peer::Outputs(1, 0, 0, 2));
  result = busy.ReadResult();
  EXPECT_EQ(result.sequence(), 2);
  EXPECT_EQ(result.outputs(), Peer::Outputs(2, 1, 0, 1));
  EXPECT_THAT(busy.End(),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("draining")));
  EXPECT_EQ(drained.wait_until(absl::ToChronoTime(Soon())),
            std::future_status::ready);
}

TEST(ExpertServiceTest, ShutdownWithCallsInFlightIsClean) {
  FakeExpertWorker worker({});
  Peer peer(worker);
  ASSERT_TRUE(peer.Greet());
  worker.engine().Hold();
  for (uint64_t i = 1; i <= 10; ++i) peer.Write(Peer::Compute(i, i % 3, 0, 1));
  ASSERT_TRUE(worker.engine().WaitUntilHeld(Soon()));
  worker.Kill();  // while one is computed and nine wait
  EXPECT_FALSE(peer.End().ok());
}

}  // namespace
}  // namespace switchyard::expert_worker
