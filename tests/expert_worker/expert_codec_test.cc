#include "expert_worker/service/expert_codec.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
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
  hello.set_protocol_version(kExpertProtocolVersion);
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

TEST(CheckHelloTest, WelcomesASameOne) {
  const HelloVerdict verdict = CheckHello(GoodHello(), Identity());
  EXPECT_EQ(verdict.refusal, Refusal::kNone);
  EXPECT_THAT(verdict.status, IsOk());
}

TEST(CheckHelloTest, RefusesEachDifferenceWithBothValues) {
  v1::Hello hello = GoodHello();
  hello.set_protocol_version(77);
  HelloVerdict verdict = CheckHello(hello, Identity());
  EXPECT_EQ(verdict.refusal, Refusal::kVersion);
  EXPECT_THAT(verdict.status,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("has 77"), HasSubstr("has 1"))));

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
  const auto request = ComputeFromProto(compute, Identity());
  ASSERT_THAT(request, IsOk());
  EXPECT_EQ(request->sequence, 9);
  EXPECT_EQ(request->layer, 4);
  EXPECT_EQ(request->num_rows, 2);
  EXPECT_EQ(request->num_outputs, 3);
  EXPECT_THAT(request->rows, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  ASSERT_EQ(request->runs.size(), 2);
  EXPECT_EQ(request->runs[0].expert, 2);
  EXPECT_THAT(request->runs[0].rows, ElementsAre(0, 1));
  EXPECT_EQ(request->runs[1].expert, 7);
  EXPECT_THAT(request->runs[1].rows, ElementsAre(1));
  EXPECT_EQ(request->timeout, absl::Microseconds(1500));
}

TEST(ComputeFromProtoTest, NoTimeoutAndAHugeOneAreNoLimit) {
  v1::Compute compute = GoodCompute();
  EXPECT_EQ(ComputeFromProto(compute, Identity())->timeout,
            absl::InfiniteDuration());
  compute.set_timeout_micros(~uint64_t{0});
  EXPECT_EQ(ComputeFromProto(compute, Identity())->timeout,
            absl::InfiniteDuration());
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
  EXPECT_THAT(
      ComputeFromProto(compute, Identity()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().text)));
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
                   "31 bytes of activations, but 2 rows of 4 floats need 32"},
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
  EXPECT_THAT(ComputeFromProto(compute, identity), IsOk());
  v1::ExpertRun* run = compute.add_runs();
  run->set_expert(3);
  run->add_rows(0);
  EXPECT_THAT(ComputeFromProto(compute, identity),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("more than 3 outputs")));
}

TEST(EncodeTest, OutputsAndTimes) {
  const std::vector<float> outputs = {1.5F, -2.0F};
  const v1::ExpertReply reply = OutputsToProto(
      7, outputs,
      {.queue = absl::Microseconds(3), .compute = absl::Nanoseconds(5)});
  EXPECT_EQ(reply.result().sequence(), 7);
  EXPECT_EQ(reply.result().code(), 0);
  EXPECT_EQ(reply.result().queue_nanos(), 3000);
  EXPECT_EQ(reply.result().compute_nanos(), 5);
  // 1.5 and -2 as IEEE binary32, little-endian.
  EXPECT_EQ(reply.result().outputs(),
            std::string("\x00\x00\xc0\x3f\x00\x00\x00\xc0", 8));
}

TEST(EncodeTest, AFailureHasCodeAndTextAndNoOutputs) {
  const v1::ExpertReply reply =
      FailureToProto(7, absl::NotFoundError("expert 3"), {});
  EXPECT_EQ(reply.result().code(), 5);  // google.rpc.Code.NOT_FOUND
  EXPECT_EQ(reply.result().message(), "expert 3");
  EXPECT_TRUE(reply.result().outputs().empty());
}

TEST(EncodeTest, AClockThatWentBackIsNoHugeTime) {
  const v1::ExpertReply reply = FailureToProto(
      1, absl::NotFoundError(""), {.queue = -absl::Seconds(1), .compute = {}});
  EXPECT_EQ(reply.result().queue_nanos(), 0);
}

}  // namespace
}  // namespace switchyard::expert_worker
