// What every ExpertClient promises (moe/expert_client.h): the same tests over
// the fake one, the local one and the one over gRPC.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "attention_worker/client/grpc_expert_client.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/local_expert_client.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "tests/attention_worker/client/client_test_util.h"
#include "tests/testing/fake_expert_client.h"
#include "tests/testing/fake_expert_engine.h"
#include "tests/testing/fake_expert_worker.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeExpertClient;
using ::switchyard::testing::FakeExpertEngine;
using ::switchyard::testing::FakeExpertWorker;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;

constexpr int64_t kHidden = 8;

// Experts 0 to 11 of layers 0 and 2.
model::ExpertSet Held() {
  model::ExpertSet set(3, 16);
  for (int e = 0; e < 12; ++e) {
    set.Insert(0, e);
    set.Insert(2, e);
  }
  return set;
}

// A client and all that is behind it.
struct Subject {
  std::unique_ptr<metrics::Registry> registry = metrics::Registry::Create();
  std::unique_ptr<FakeExpertEngine> engine;
  std::unique_ptr<FakeExpertWorker> worker;
  std::unique_ptr<ExpertClient> client;
};

std::unique_ptr<Subject> MakeFake() {
  auto subject = std::make_unique<Subject>();
  subject->client = std::make_unique<FakeExpertClient>("fake", Held());
  return subject;
}

std::unique_ptr<Subject> MakeLocal() {
  auto subject = std::make_unique<Subject>();
  subject->engine = std::make_unique<FakeExpertEngine>(Held());
  subject->client = std::make_unique<LocalExpertClient>(
      subject->engine.get(), subject->registry.get());
  return subject;
}

std::unique_ptr<Subject> MakeGrpc() {
  auto subject = std::make_unique<Subject>();
  FakeExpertWorker::Options options;
  options.holdings = Held();
  subject->worker = std::make_unique<FakeExpertWorker>(options);
  subject->client = NewGrpcExpertClient({.address = subject->worker->address(),
                                         .model_fingerprint = "f00d",
                                         .num_layers = 3,
                                         .num_experts = 16,
                                         .hidden_size = kHidden,
                                         .instance_id = "test",
                                         .registry = subject->registry.get()})
                        .value();
  return subject;
}

struct Kind {
  const char* name;
  std::unique_ptr<Subject> (*make)();
};

class ExpertClientContract : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Eventually([&] { return client().health().ok(); }))
        << client().health();
  }
  ExpertClient& client() { return *subject_->client; }

  std::unique_ptr<Subject> subject_ = GetParam().make();
};

TEST_P(ExpertClientContract, HoldsWhatItHolds) {
  EXPECT_EQ(client().holdings(), Held());
  EXPECT_FALSE(client().name().empty());
  EXPECT_GE(client().max_call_rows(), 64);
}

TEST_P(ExpertClientContract, AnswersRunAfterRun) {
  const TestCall call = MakeExpertCall(2, {0, 3, 11}, 5, kHidden, 1);
  auto reply = CallAndWait(&client(), call);
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(Outputs(*reply), FakeOutputs(call));
}

TEST_P(ExpertClientContract, AnswersACallWithoutADeadline) {
  TestCall call = MakeExpertCall(0, {7}, 1, kHidden, 1);
  call.deadline = absl::InfiniteFuture();
  auto reply = CallAndWait(&client(), call);
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(Outputs(*reply), FakeOutputs(call));
}

TEST_P(ExpertClientContract, WhatIsNotHeldIsNotFound) {
  EXPECT_THAT(CallAndWait(&client(), MakeExpertCall(2, {0, 12}, 1, kHidden, 1)),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(CallAndWait(&client(), MakeExpertCall(1, {0}, 1, kHidden, 1)),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(ExpertClientContract, APastDeadlineIsExceeded) {
  TestCall call = MakeExpertCall(0, {7}, 1, kHidden, 1);
  call.deadline = absl::Now() - absl::Seconds(1);
  EXPECT_THAT(CallAndWait(&client(), call),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_P(ExpertClientContract, ManyThreadsGetTheirOwnAnswers) {
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int t = 0; t < 4; ++t) {
    threads.push_back(StartThread("caller", [&, t] {
      for (int i = 0; i < 50; ++i) {
        const TestCall call =
            MakeExpertCall(i % 2 * 2, {i % 12}, 1 + i % 3, kHidden,
                           static_cast<float>(t * 1000 + i));
        auto reply = CallAndWait(&client(), call);
        if (reply.ok() && Outputs(*reply) == FakeOutputs(call)) ++right;
      }
    }));
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 4 * 50);
}

INSTANTIATE_TEST_SUITE_P(All, ExpertClientContract,
                         ::testing::Values(Kind{"Fake", MakeFake},
                                           Kind{"Local", MakeLocal},
                                           Kind{"Grpc", MakeGrpc}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace switchyard::attention_worker
