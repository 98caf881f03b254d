// A dispatcher whose clients come and go.

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/moe/dispatch_problem.h"
#include "tests/attention_worker/moe/dispatcher_fixture.h"
#include "tests/testing/fake_expert_client.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeExpertClient;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::Each;
using ::testing::HasSubstr;

using ChangingClientsTest = DispatcherFixture;
using Clients = std::vector<std::shared_ptr<ExpertClient>>;

TEST_F(ChangingClientsTest, NobodyAtFirst) {
  auto dispatcher = Make();
  EXPECT_EQ(dispatcher->MissingExperts(), Everything());
  DispatchProblem problem = RowsFor({{1, 2}});
  problem.deadlines[0] = absl::Now() + absl::Milliseconds(10);
  EXPECT_THAT(
      dispatcher->Dispatch(problem.Request(), Nothing).sequence_status[0],
      StatusIs(absl::StatusCode::kDeadlineExceeded,
               HasSubstr("no reachable holder of experts 1-2")));

  Add("a", Everything());
  dispatcher->SetClients({clients_[0]});
  EXPECT_TRUE(dispatcher->MissingExperts().empty());
  const DispatchProblem second = Problem(5);
  EXPECT_EQ(Outputs(dispatcher->Dispatch(second.Request(), Nothing), kHidden),
            second.Expected());
}

TEST_F(ChangingClientsTest, RowsThatWaitGoToTheOneThatJoins) {
  auto dispatcher = Make();
  const auto joiner = std::make_shared<FakeExpertClient>("a", Everything());
  const DispatchProblem problem = Problem(5);
  std::thread thread;
  const DispatchResult result = dispatcher->Dispatch(problem.Request(), [&] {
    thread = StartThread("join", [&] { dispatcher->SetClients({joiner}); });
  });
  thread.join();
  EXPECT_THAT(result.sequence_status, Each(IsOk()));
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
}

TEST_F(ChangingClientsTest, WhatARemovedOneHasInFlightStillCounts) {
  FakeExpertClient* a = Add("a", Everything());
  a->Hold();
  auto dispatcher = Make();
  const DispatchProblem problem = Problem(5);
  const DispatchResult result = dispatcher->Dispatch(problem.Request(), [&] {
    dispatcher->SetClients({});
    a->ReleaseAll();
  });
  EXPECT_THAT(result.sequence_status, Each(IsOk()));
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
  EXPECT_EQ(a->num_calls(), 1);
}

TEST_F(ChangingClientsTest, ARemovedOneGetsNothingMore) {
  FakeExpertClient* a = Add("a", Everything());
  FakeExpertClient* b = Add("b", Everything());
  auto dispatcher = Make();
  dispatcher->SetClients({clients_[1]});
  for (int i = 0; i < 3; ++i) {
    const DispatchProblem problem = Problem(4);
    EXPECT_EQ(
        Outputs(dispatcher->Dispatch(problem.Request(), Nothing), kHidden),
        problem.Expected());
  }
  EXPECT_EQ(a->num_calls(), 0);
  EXPECT_EQ(b->num_calls(), 3);
}

TEST_F(ChangingClientsTest, ARemovedOneIsLetGoAndNotHeardAnyMore) {
  auto gone = std::make_shared<FakeExpertClient>("a", Everything());
  const std::weak_ptr<FakeExpertClient> watch = gone;
  auto dispatcher = Make();
  dispatcher->SetClients({gone});
  gone->Hold();
  DispatchProblem problem = RowsFor({{1, 2}});
  problem.deadlines[0] = absl::Now() + absl::Milliseconds(10);
  dispatcher->Dispatch(problem.Request(), [&] {
    dispatcher->SetClients({});
    gone = nullptr;
    // In use by the dispatch that runs.
    EXPECT_FALSE(watch.expired());
    EXPECT_EQ(dispatcher->MissingExperts(), Everything());
    EXPECT_FALSE(watch.expired());
  });
  EXPECT_FALSE(watch.expired());
  dispatcher->MissingExperts();
  EXPECT_TRUE(watch.expired());

  // Between dispatches it goes at once; with somebody else's reference, deaf.
  auto other = std::make_shared<FakeExpertClient>("b", Everything());
  dispatcher->SetClients({other});
  dispatcher->SetClients({});
  EXPECT_EQ(other.use_count(), 1);
  other->SetHoldings(Range(0, 3));
}

TEST_F(ChangingClientsTest, WhoStaysKeepsItsRecord) {
  FakeExpertClient* a = Add("a", Everything());
  options_.min_backoff = options_.max_backoff = absl::Seconds(60);
  auto dispatcher = Make();
  a->FailNext(absl::UnavailableError("no"));
  DispatchProblem problem = RowsFor({{1, 2}});
  problem.deadlines[0] = absl::Now() + absl::Milliseconds(10);
  dispatcher->Dispatch(problem.Request(), Nothing);
  ASSERT_EQ(a->num_calls(), 1);
  // Still avoided, also if it is told of holdings that it knows already.
  FakeExpertClient* b = Add("b", Range(0, 1));
  dispatcher->SetClients({clients_[0], clients_[1]});
  problem.deadlines[0] = absl::Now() + absl::Milliseconds(10);
  EXPECT_THAT(
      dispatcher->Dispatch(problem.Request(), Nothing).sequence_status[0],
      StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("a: no")));
  EXPECT_EQ(a->num_calls(), 1);
  EXPECT_EQ(b->num_calls(), 0);
  // A new client of that name is asked at once: its stream is another.
  const auto again = std::make_shared<FakeExpertClient>("a", Everything());
  dispatcher->SetClients({again});
  const DispatchProblem third = RowsFor({{1, 2}});
  EXPECT_EQ(Outputs(dispatcher->Dispatch(third.Request(), Nothing), kHidden),
            third.Expected());
}

// Sets that change all the time, from another thread, while clients die and
// come back: every result is the right one, and all end.
TEST_F(ChangingClientsTest, AnyChangesGiveTheSameOutputs) {
  constexpr int kClients = 5;
  options_.min_backoff = absl::Microseconds(50);
  options_.max_backoff = absl::Milliseconds(2);
  auto dispatcher = Make();
  std::atomic<bool> over = false;
  std::atomic<int> changes = 0;
  std::thread nemesis = StartThread("nemesis", [&] {
    std::mt19937 random(3);
    std::vector<std::shared_ptr<FakeExpertClient>> pool;
    for (int i = 0; i < kClients; ++i) {
      pool.push_back(
          std::make_shared<FakeExpertClient>(std::to_string(i), Everything()));
    }
    while (!over) {
      const size_t which = random() % pool.size();
      switch (random() % 4) {
        case 0:
          pool[which] = std::make_shared<FakeExpertClient>(
              std::to_string(which), Range(0, 1 + random() % kExperts));
          break;
        case 1:
          pool[which]->Disconnect(absl::UnavailableError("nemesis"));
          break;
        case 2:
          pool[which]->Hold();
          break;
        default:
          pool[which]->ReleaseAll();
      }
      Clients now;
      for (const auto& client : pool) {
        if (random() % 3 != 0) now.push_back(client);
      }
      dispatcher->SetClients(now);
      ++changes;
      for (const auto& client : pool) {
        if (random() % 2 == 0) client->ReleaseAll();
      }
    }
    const auto last = std::make_shared<FakeExpertClient>("last", Everything());
    dispatcher->SetClients({last});
    for (const auto& client : pool) client->ReleaseAll();
  });
  const absl::Time deadline = Soon();
  for (int round = 0; round < 200 || changes < 1000; ++round) {
    EXPECT_LT(absl::Now(), deadline);
    const DispatchProblem problem = Problem(1 + random_() % 12, 3);
    const DispatchResult result =
        dispatcher->Dispatch(problem.Request(), Nothing);
    EXPECT_THAT(result.sequence_status, Each(IsOk()));
    EXPECT_EQ(Outputs(result, kHidden), problem.Expected())
        << "round " << round;
    if (HasFailure()) break;
  }
  over = true;
  nemesis.join();
}

}  // namespace
}  // namespace switchyard::attention_worker
