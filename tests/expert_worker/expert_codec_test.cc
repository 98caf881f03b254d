#include "expert_worker/service/expert_codec.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/kernel_table.h"
#include "tests/testing/matchers.h"

namespace switchyard::expert_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

WorkerIdentity Identity() {
  return {.model_fingerprint = "abc",
          .instance_id = "me",
          .num_layers = 5,
          .num_experts = 10,
          .hidden_size = 4,
          .max_rows_in_flight = 100};
}

v1::Hello GoodHello() {
  v1::Hello hello;
  hello.set_protocol_version(3);
  hello.set_oldest_protocol_version(2);
  hello.set_model_fingerprint("abc");
  hello.set_weight_format(v1::WEIGHT_FORMAT_CHECKPOINT_F32);
  hello.set_activation_format(v1::ACTIVATION_FORMAT_F32);
  return hello;
}

// Two rows; expert 2 gets both, expert 7 the second.
v1::Compute GoodCompute() {
  v1::Compute compute;
  compute.set_sequence(9);
  compute.set_layer(4);
  compute.set_num_rows(2);
  const float rows[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  compute.set_activations(rows, sizeof(rows));
  v1::ExpertRun* run = compute.add_runs();
  run->set_expert(2);
  run->add_rows(0);
  run->add_rows(1);
  run = compute.add_runs();
  run->set_expert(7);
  run->add_rows(1);
  return compute;
}

// Decoded as if it had come over the wire.
absl::StatusOr<ComputeRequest> Decode(
    v1::Compute compute, const WorkerIdentity& identity = Identity()) {
  const std::unique_ptr<std::string> activations(compute.release_activations());
  return ComputeFromProto(
      compute, activations == nullptr ? BytePieces() : BytePieces(*activations),
      identity, BufferPool::Create(0).get());
}

TEST(CheckHelloTest, WelcomesASameOne) {
  const HelloVerdict verdict = CheckHello(GoodHello(), Identity());
  EXPECT_EQ(verdict.refusal, Refusal::kNone);
  EXPECT_THAT(verdict.status, IsOk());
}

TEST(CheckHelloTest, SpeaksTheNewestVersionThatBothKnow) {
  EXPECT_EQ(CheckHello(GoodHello(), Identity()).protocol_version, 3u);
  // A build of before version 3.
  v1::Hello old = GoodHello();
  old.set_protocol_version(2);
  old.clear_oldest_protocol_version();
  EXPECT_EQ(CheckHello(old, Identity()).protocol_version, 2u);
  // One of after it.
  v1::Hello later = GoodHello();
  later.set_protocol_version(9);
  EXPECT_EQ(CheckHello(later, Identity()).protocol_version, 3u);
  later.set_oldest_protocol_version(4);
  EXPECT_EQ(CheckHello(later, Identity()).refusal, Refusal::kVersion);
  // This one is held back.
  WorkerIdentity identity = Identity();
  identity.versions.newest = 2;
  EXPECT_EQ(CheckHello(GoodHello(), identity).protocol_version, 2u);
}

TEST(CheckHelloTest, RefusesEachDifferenceWithBothValues) {
  v1::Hello hello = GoodHello();
  hello.set_protocol_version(77);
  hello.set_oldest_protocol_version(70);
  HelloVerdict verdict = CheckHello(hello, Identity());
  EXPECT_EQ(verdict.refusal, Refusal::kVersion);
  EXPECT_THAT(verdict.status, StatusIs(absl::StatusCode::kFailedPrecondition,
                                       AllOf(HasSubstr("has 70 to 77"),
                                             HasSubstr("has 2 to 3"))));

  hello = GoodHello();
  hello.set_model_fingerprint("xyz");
  verdict = CheckHello(hello, Identity());
  EXPECT_EQ(verdict.refusal, Refusal::kFingerprint);
  EXPECT_THAT(verdict.status,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("has xyz"), HasSubstr("has abc"))));

  hello = GoodHello();
  hello.clear_weight_format();
  verdict = CheckHello(hello, Identity());
  EXPECT_EQ(verdict.refusal, Refusal::kWeightFormat);
  EXPECT_THAT(verdict.status,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("WEIGHT_FORMAT_UNSPECIFIED"),
                             HasSubstr("WEIGHT_FORMAT_CHECKPOINT_F32"))));

  hello = GoodHello();
  hello.clear_activation_format();
  verdict = CheckHello(hello, Identity());
  EXPECT_EQ(verdict.refusal, Refusal::kActivationFormat);
  EXPECT_THAT(verdict.status, StatusIs(absl::StatusCode::kFailedPrecondition,
                                       HasSubstr("ACTIVATION_FORMAT_F32")));
}

TEST(CheckHelloTest, AFormatFromTheFutureIsRefusedToo) {
  v1::Hello hello = GoodHello();
  hello.set_weight_format(static_cast<v1::WeightFormat>(99));
  EXPECT_EQ(CheckHello(hello, Identity()).refusal, Refusal::kWeightFormat);
}

TEST(ComputeFromProtoTest, DecodesWhatIsWellFormed) {
  v1::Compute compute = GoodCompute();
  compute.set_timeout_micros(1500);
  const auto request = Decode(compute);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->sequence, 9);
  EXPECT_EQ(request->layer, 4);
  EXPECT_EQ(request->num_rows, 2);
  EXPECT_EQ(request->num_outputs, 3);
  EXPECT_THAT(request->rows.floats(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(request->rows.quantized().values, nullptr);
  ASSERT_EQ(request->runs.size(), 2);
  EXPECT_EQ(request->runs[0].expert, 2);
  EXPECT_THAT(request->runs[0].rows, ElementsAre(0, 1));
  EXPECT_EQ(request->runs[1].expert, 7);
  EXPECT_THAT(request->runs[1].rows, ElementsAre(1));
  EXPECT_EQ(request->timeout, absl::Microseconds(1500));
}

TEST(ComputeFromProtoTest, NoTimeoutAndAHugeOneAreNoLimit) {
  v1::Compute compute = GoodCompute();
  EXPECT_EQ(Decode(compute)->timeout, absl::InfiniteDuration());
  compute.set_timeout_micros(~uint64_t{0});
  EXPECT_EQ(Decode(compute)->timeout, absl::InfiniteDuration());
}

struct BadCompute {
  const char* name;
  void (*spoil)(v1::Compute*);
  const char* text;
};

class BadComputeTest : public ::testing::TestWithParam<BadCompute> {};

TEST_P(BadComputeTest, IsRefusedWithTheNumbers) {
  v1::Compute compute = GoodCompute();
  GetParam().spoil(&compute);
  EXPECT_THAT(Decode(compute), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr(GetParam().text)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadComputeTest,
    ::testing::Values(
        BadCompute{"Layer", [](v1::Compute* c) { c->set_layer(5); },
                   "layer 5 of a model that has 5"},
        BadCompute{"HugeLayer", [](v1::Compute* c) { c->set_layer(~0U); },
                   "layer 4294967295"},
        BadCompute{"NoRows",
                   [](v1::Compute* c) {
                     c->set_num_rows(0);
                     c->clear_activations();
                   },
                   "0 rows"},
        BadCompute{"TooManyRows", [](v1::Compute* c) { c->set_num_rows(101); },
                   "101 rows"},
        // 2^30 * 4 floats * 4 bytes overflows 32 bits to 0.
        BadCompute{"OverflowingRows",
                   [](v1::Compute* c) {
                     c->set_num_rows(1U << 30);
                     c->clear_activations();
                   },
                   "1073741824 rows"},
        BadCompute{"ShortActivations",
                   [](v1::Compute* c) { c->mutable_activations()->pop_back(); },
                   "31 bytes of activations, but 2 rows of 4 columns as "
                   "ACTIVATION_FORMAT_F32 need 32"},
        BadCompute{
            "LongActivations",
            [](v1::Compute* c) { c->mutable_activations()->push_back('x'); },
            "33 bytes"},
        BadCompute{"NoRuns", [](v1::Compute* c) { c->clear_runs(); },
                   "no runs"},
        BadCompute{"Expert",
                   [](v1::Compute* c) { c->mutable_runs(1)->set_expert(10); },
                   "expert 10 of a model that has 10"},
        BadCompute{"NegativeExpert",
                   [](v1::Compute* c) { c->mutable_runs(1)->set_expert(~0U); },
                   "expert 4294967295"},
        BadCompute{"RepeatedExpert",
                   [](v1::Compute* c) { c->mutable_runs(1)->set_expert(2); },
                   "not ascending by expert: 2 after 2"},
        BadCompute{"ExpertsOutOfOrder",
                   [](v1::Compute* c) { c->mutable_runs(1)->set_expert(1); },
                   "1 after 2"},
        BadCompute{"EmptyRun",
                   [](v1::Compute* c) { c->mutable_runs(0)->clear_rows(); },
                   "run of expert 2 has no rows"},
        BadCompute{"RowOutOfRange",
                   [](v1::Compute* c) { c->mutable_runs(1)->set_rows(0, 2); },
                   "row 2"},
        BadCompute{"NegativeRow",
                   [](v1::Compute* c) { c->mutable_runs(1)->set_rows(0, ~0U); },
                   "row 4294967295"},
        BadCompute{"RepeatedRow",
                   [](v1::Compute* c) { c->mutable_runs(0)->set_rows(1, 0); },
                   "row 0 after 0"}),
    [](const auto& info) { return info.param.name; });

// ---------------------------------------------------------------------------
// Quantised rows.

constexpr int64_t kOddHidden = 40;  // 64 columns; the second group has 8

WorkerIdentity QuantizedIdentity() {
  WorkerIdentity identity = Identity();
  identity.hidden_size = kOddHidden;
  identity.weight_format = v1::WEIGHT_FORMAT_Q4_GROUP32;
  return identity;
}

struct QuantizedPayload {
  std::vector<int8_t> values = std::vector<int8_t>(2 * 64, 0);
  std::vector<float> scales = {0.5F, 0.25F, 2, 0};

  QuantizedPayload() {
    for (int row = 0; row < 2; ++row) {
      for (int i = 0; i < kOddHidden; ++i) {
        values[row * 64 + i] = static_cast<int8_t>(i - 20 + 50 * row);
      }
    }
    values[3] = -127;
    values[4] = 127;
  }
  std::string Bytes() const {
    return std::string(reinterpret_cast<const char*>(values.data()),
                       values.size()) +
           std::string(reinterpret_cast<const char*>(scales.data()),
                       scales.size() * sizeof(float));
  }
};

TEST(QuantizedRowsTest, ComeWithTheirSums) {
  const QuantizedPayload payload;
  v1::Compute compute = GoodCompute();
  compute.set_activations(payload.Bytes());
  const auto request = Decode(compute, QuantizedIdentity());
  ASSERT_THAT(request, IsOk());
  EXPECT_TRUE(request->rows.floats().empty());
  const kernels::QuantizedRows& rows = request->rows.quantized();
  EXPECT_EQ(rows.cols, kOddHidden);
  EXPECT_EQ(std::vector<int8_t>(rows.values, rows.values + 128),
            payload.values);
  EXPECT_EQ(std::vector<float>(rows.scales, rows.scales + 4), payload.scales);
  for (int group = 0; group < 4; ++group) {
    EXPECT_EQ(rows.sums[group],
              std::accumulate(payload.values.begin() + group * 32,
                              payload.values.begin() + (group + 1) * 32, 0));
  }
}

TEST(QuantizedRowsTest, AreWhatTheKernelsMakeOfFloats) {
  std::vector<float> x(2 * kOddHidden);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  x[17] = std::numeric_limits<float>::infinity();  // its group's scale is NaN
  std::vector<int8_t> values(2 * 64);
  std::vector<float> scales(4);
  std::vector<int32_t> sums(4);
  for (int row = 0; row < 2; ++row) {
    kernels::Kernels().quantize_row(&x[row * kOddHidden], kOddHidden,
                                    &values[row * 64], &scales[row * 2],
                                    &sums[row * 2]);
  }
  v1::Compute compute = GoodCompute();
  compute.set_activations(values.data(), values.size());
  compute.mutable_activations()->append(
      reinterpret_cast<const char*>(scales.data()), 4 * sizeof(float));
  const auto request = Decode(compute, QuantizedIdentity());
  ASSERT_THAT(request, IsOk());
  const kernels::QuantizedRows& rows = request->rows.quantized();
  EXPECT_EQ(std::vector<int32_t>(rows.sums, rows.sums + 4), sums);
  EXPECT_TRUE(std::isnan(rows.scales[0]));
}

TEST(QuantizedRowsTest, FloatsAreOfAnotherSize) {
  v1::Compute compute = GoodCompute();
  compute.set_activations(std::string(2 * kOddHidden * 4, '\0'));
  EXPECT_THAT(
      Decode(compute, QuantizedIdentity()),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("320 bytes of activations, but 2 rows of 40 columns "
                         "as ACTIVATION_FORMAT_I8_GROUP32 need 144")));
}

TEST(RoundedRowsTest, ComeAsTheyAre) {
  WorkerIdentity identity = Identity();
  identity.hidden_size = kOddHidden;
  identity.weight_format = v1::WEIGHT_FORMAT_BF16_DOT;
  std::vector<uint16_t> bits(2 * kOddHidden);
  for (size_t i = 0; i < bits.size(); ++i) {
    bits[i] = static_cast<uint16_t>(i * 821);  // NaN among them
  }
  v1::Compute compute = GoodCompute();
  compute.set_activations(bits.data(), bits.size() * sizeof(uint16_t));
  const auto request = Decode(compute, identity);
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->rows.format(), kernels::RowFormat::kBF16);
  EXPECT_TRUE(request->rows.floats().empty());
  EXPECT_EQ(request->rows.quantized().values, nullptr);
  EXPECT_EQ(std::vector<uint16_t>(request->rows.rounded(),
                                  request->rows.rounded() + bits.size()),
            bits);
  compute.mutable_activations()->pop_back();
  EXPECT_THAT(Decode(compute, identity),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("as ACTIVATION_FORMAT_BF16 need 160")));
}

struct BadRows {
  const char* name;
  void (*spoil)(QuantizedPayload*);
  const char* text;
};
class BadRowsTest : public ::testing::TestWithParam<BadRows> {};

TEST_P(BadRowsTest, AreRefused) {
  QuantizedPayload payload;
  GetParam().spoil(&payload);
  v1::Compute compute = GoodCompute();
  compute.set_activations(payload.Bytes());
  EXPECT_THAT(
      Decode(compute, QuantizedIdentity()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().text)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadRowsTest,
    ::testing::Values(
        BadRows{"Minus128", [](QuantizedPayload* p) { p->values[70] = -128; },
                "-128"},
        BadRows{"NegativeScale",
                [](QuantizedPayload* p) { p->scales[2] = -1e-30F; }, "scale"},
        BadRows{"InfiniteScale",
                [](QuantizedPayload* p) {
                  p->scales[1] = std::numeric_limits<float>::infinity();
                },
                "scale"},
        BadRows{"Padding", [](QuantizedPayload* p) { p->values[127] = 1; },
                "beyond column 40"}),
    [](const auto& info) { return info.param.name; });

TEST(QuantizedRowsTest, AGroupOfNothingButPaddingHasNoScale) {
  WorkerIdentity identity = QuantizedIdentity();
  identity.hidden_size = 32;  // 64 columns: the second group is padding
  QuantizedPayload payload;
  for (int row = 0; row < 2; ++row) {
    std::fill_n(payload.values.begin() + row * 64 + 32, 32, int8_t{0});
  }
  payload.scales = {1, 0, 1, std::numeric_limits<float>::quiet_NaN()};
  v1::Compute compute = GoodCompute();
  compute.set_activations(payload.Bytes());
  EXPECT_THAT(Decode(compute, identity),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("beyond column 32")));
  payload.scales[3] = 0;
  compute.set_activations(payload.Bytes());
  EXPECT_THAT(Decode(compute, identity), IsOk());
}

TEST(CheckHelloTest, QuantisedWeightsWantQuantisedRows) {
  v1::Hello hello = GoodHello();
  EXPECT_EQ(CheckHello(hello, QuantizedIdentity()).refusal,
            Refusal::kWeightFormat);
  hello.set_weight_format(v1::WEIGHT_FORMAT_Q4_GROUP32);
  EXPECT_EQ(CheckHello(hello, QuantizedIdentity()).refusal,
            Refusal::kActivationFormat);
  hello.set_activation_format(v1::ACTIVATION_FORMAT_I8_GROUP32);
  EXPECT_EQ(CheckHello(hello, QuantizedIdentity()).refusal, Refusal::kNone);
  hello.set_weight_format(v1::WEIGHT_FORMAT_Q8_GROUP32);
  const HelloVerdict verdict = CheckHello(hello, QuantizedIdentity());
  EXPECT_THAT(verdict.status,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("WEIGHT_FORMAT_Q8_GROUP32"),
                             HasSubstr("WEIGHT_FORMAT_Q4_GROUP32"))));
}

TEST(ComputeFromProtoTest, MoreOutputsThanAReplyCarriesAreRefused) {
  WorkerIdentity identity = Identity();
  // One output row is a third of what a reply carries: three fit, four do not.
  identity.hidden_size = kMaxOutputBytes / 4 / 3;
  identity.max_rows_in_flight = 1;
  v1::Compute compute;
  compute.set_num_rows(1);
  compute.set_activations(
      std::string(static_cast<size_t>(identity.hidden_size) * 4, '\0'));
  for (int expert = 0; expert < 3; ++expert) {
    v1::ExpertRun* run = compute.add_runs();
    run->set_expert(expert);
    run->add_rows(0);
  }
  EXPECT_THAT(Decode(compute, identity), IsOk());
  v1::ExpertRun* run = compute.add_runs();
  run->set_expert(3);
  run->add_rows(0);
  EXPECT_THAT(Decode(compute, identity),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("more than 3 outputs")));
}

TEST(EncodeTest, OutputsAndTimes) {
  // 1.5 and -2 as IEEE binary32, little-endian.
  const std::string outputs("\x00\x00\xc0\x3f\x00\x00\x00\xc0", 8);
  v1::ExpertReply reply;
  ASSERT_TRUE(reply.ParseFromString(
      BytesBeforeOutputs(7, outputs.size(),
                         {.received = absl::FromUnixNanos(1234),
                          .queue = absl::Microseconds(3),
                          .compute = absl::Nanoseconds(5)}) +
      outputs));
  EXPECT_EQ(reply.result().sequence(), 7);
  EXPECT_EQ(reply.result().code(), 0);
  EXPECT_EQ(reply.result().queue_nanos(), 3000);
  EXPECT_EQ(reply.result().compute_nanos(), 5);
  EXPECT_EQ(reply.result().received_unix_nanos(), 1234);
  EXPECT_EQ(reply.result().outputs(), outputs);
}

TEST(EncodeTest, AFailureHasCodeAndTextAndNoOutputs) {
  const v1::ExpertReply reply =
      FailureToProto(7, absl::NotFoundError("expert 3"), {});
  EXPECT_EQ(reply.result().code(), 5);  // google.rpc.Code.NOT_FOUND
  EXPECT_EQ(reply.result().message(), "expert 3");
  EXPECT_TRUE(reply.result().outputs().empty());
}

TEST(EncodeTest, AClockThatWentBackIsNoHugeTime) {
  const v1::ExpertReply reply = FailureToProto(1, absl::NotFoundError(""),
                                               {.received = absl::UnixEpoch(),
                                                .queue = -absl::Seconds(1),
                                                .compute = {}});
  EXPECT_EQ(reply.result().queue_nanos(), 0);
}

TEST(HoldingsToProtoTest, TellsWhatChangedWhereThatIsShorter) {
  model::ExpertSet before(4, 512);
  before.Insert(0, 3);
  before.Insert(3, 511);
  model::ExpertSet after = before;
  after.Erase(0, 3);
  after.Insert(1, 7);
  after.Insert(2, 0);
  const v1::ExpertReply change = HoldingsToProto(before, after, 3);
  ASSERT_TRUE(change.has_holdings_change());
  EXPECT_THAT(change.holdings_change().added(), ElementsAre(512 + 7, 1024));
  EXPECT_THAT(change.holdings_change().removed(), ElementsAre(3));
  // To a build that does not know the message.
  EXPECT_EQ(HoldingsToProto(before, after, 2).holdings().holdings(),
            after.ToBitmap());
  // Nearly all of them: the bitmap is shorter.
  for (int expert = 0; expert < 512; ++expert) {
    if (!after.Contains(1, expert)) after.Insert(1, expert);
  }
  EXPECT_EQ(HoldingsToProto(before, after, 3).holdings().holdings(),
            after.ToBitmap());
}

}  // namespace
}  // namespace switchyard::expert_worker
