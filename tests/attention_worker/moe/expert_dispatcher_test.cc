#include "attention_worker/moe/expert_dispatcher.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "model/expert_set.h"
#include "tests/attention_worker/moe/dispatch_problem.h"
#include "tests/attention_worker/moe/dispatcher_fixture.h"
#include "tests/testing/fake_expert_client.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeExpertClient;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ExpertDispatcherTest = DispatcherFixture;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(ExpertDispatcherTest, PutsEveryPairInItsPlace) {
  Add("a", Range(0, 5));
  Add("b", Range(5, 11));
  Add("c", Range(11, 16));
  auto dispatcher = Make();
  const DispatchProblem problem = Problem(33, 3);
  const DispatchResult result =
      dispatcher->Dispatch(problem.Request(), Nothing);
  EXPECT_THAT(result.sequence_status, Each(IsOk()));
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
}

TEST_F(ExpertDispatcherTest, OneCallEachWithEveryRowOnce) {
  FakeExpertClient* a = Add("a", Range(0, 8));
  FakeExpertClient* b = Add("b", Range(8, 16));
  auto dispatcher = Make();
  // Row 0 needs only b, row 1 both, row 2 only a.
  const DispatchProblem problem = RowsFor({{15, 9}, {0, 12}, {7, 3}});
  const DispatchResult result =
      dispatcher->Dispatch(problem.Request(), Nothing);
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
  ASSERT_EQ(a->num_calls(), 1);
  ASSERT_EQ(b->num_calls(), 1);
  const FakeExpertClient::Record to_a = a->records()[0];
  EXPECT_EQ(to_a.layer, 2);
  EXPECT_EQ(to_a.num_rows, 2);  // rows 1 and 2, as 0 and 1
  ASSERT_EQ(to_a.runs.size(), 3);
  EXPECT_EQ(to_a.runs[0].expert, 0);
  EXPECT_THAT(to_a.runs[0].rows, ElementsAre(0));
  EXPECT_EQ(to_a.runs[1].expert, 3);
  EXPECT_THAT(to_a.runs[1].rows, ElementsAre(1));
  EXPECT_EQ(to_a.runs[2].expert, 7);
  EXPECT_EQ(b->records()[0].num_rows, 2);
}

TEST_F(ExpertDispatcherTest, RunsAreAscendingWhateverTheOrderOfExperts) {
  FakeExpertClient* a = Add("a", Everything());
  auto dispatcher = Make();
  // By expert, row 2 comes before row 0.
  const DispatchProblem problem = RowsFor({{9, 5}, {5, 1}, {1, 9}});
  const DispatchResult result =
      dispatcher->Dispatch(problem.Request(), Nothing);
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
  const FakeExpertClient::Record call = a->records()[0];
  for (const experts::ExpertRun& run : call.runs) {
    EXPECT_TRUE(std::is_sorted(run.rows.begin(), run.rows.end())) << run.expert;
  }
}

TEST_F(ExpertDispatcherTest, OverlapsAfterSendingAndBeforeComputingHere) {
  FakeExpertClient* remote = Add("remote", Range(0, 8));
  FakeExpertClient* local = Add("local", Range(8, 16));
  local->set_computes_in_forward(true);
  remote->Hold();
  auto dispatcher = Make();
  const DispatchProblem problem = RowsFor({{1, 9}});
  int overlaps = 0;
  const DispatchResult result = dispatcher->Dispatch(problem.Request(), [&] {
    ++overlaps;
    EXPECT_EQ(remote->num_calls(), 1);
    EXPECT_EQ(local->num_calls(), 0);
    remote->ReleaseAll();
  });
  EXPECT_EQ(overlaps, 1);
  EXPECT_EQ(local->num_calls(), 1);
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
}

TEST_F(ExpertDispatcherTest, ComputeTimeIsThatOfTheSlowestHolder) {
  FakeExpertClient* a = Add("a", Range(0, 8));
  FakeExpertClient* b = Add("b", Range(8, 16));
  a->set_compute_time(absl::Milliseconds(5));
  b->set_compute_time(absl::Milliseconds(3));
  // b's work comes in two calls, which it computes one after the other.
  b->set_max_call_rows(1);
  auto dispatcher = Make();
  const DispatchProblem problem = RowsFor({{15, 9}});
  EXPECT_EQ(dispatcher->Dispatch(problem.Request(), Nothing).compute_time,
            absl::Milliseconds(6));
  const DispatchProblem both = RowsFor({{15, 3}});
  EXPECT_EQ(dispatcher->Dispatch(both.Request(), Nothing).compute_time,
            absl::Milliseconds(5));
}

// However long a step has taken already: every dispatch has all of the wait.
TEST_F(ExpertDispatcherTest, WaitsNoLongerThanItIsTold) {
  Add("a", Range(0, 4));
  options_.max_wait = absl::Milliseconds(20);
  auto dispatcher = Make();
  for (int i = 0; i < 2; ++i) {
    DispatchProblem problem = RowsFor({{1, 6}, {2, 3}});
    problem.deadlines = {absl::InfiniteFuture(), absl::InfiniteFuture()};
    const absl::Time start = absl::Now();
    const DispatchResult result =
        dispatcher->Dispatch(problem.Request(), Nothing);
    EXPECT_GE(absl::Now(), start + absl::Milliseconds(20));
    EXPECT_THAT(result.sequence_status[0],
                StatusIs(absl::StatusCode::kDeadlineExceeded,
                         HasSubstr("no reachable holder of experts 6")));
    EXPECT_THAT(result.sequence_status[1], IsOk());
  }
}

TEST_F(ExpertDispatcherTest, OverlapsOnceEvenWithoutRows) {
  Add("a", Everything());
  auto dispatcher = Make();
  DispatchProblem problem;
  problem.experts_per_row = 1;
  problem.hidden_size = kHidden;
  problem.deadlines = {Soon()};
  int overlaps = 0;
  const DispatchResult result =
      dispatcher->Dispatch(problem.Request(), [&] { ++overlaps; });
  EXPECT_EQ(overlaps, 1);
  EXPECT_TRUE(result.outputs.empty());
  EXPECT_THAT(result.sequence_status, ElementsAre(IsOk()));
}

TEST_F(ExpertDispatcherTest, ThePolicyChoosesAmongReachableHolders) {
  FakeExpertClient* a = Add("a", Range(0, 4));
  FakeExpertClient* b = Add("b", Range(0, 8));
  FakeExpertClient* c = Add("c", Range(4, 8));
  options_.policy = [](int layer, int expert, absl::Span<const int> holders) {
    EXPECT_THAT(holders, expert < 4 ? ElementsAre(0, 1) : ElementsAre(1, 2));
    return holders.size() - 1;
  };
  auto dispatcher = Make();
  const DispatchProblem problem = RowsFor({{1, 5}});
  EXPECT_EQ(Outputs(dispatcher->Dispatch(problem.Request(), Nothing), kHidden),
            problem.Expected());
  EXPECT_EQ(a->num_calls(), 0);
  EXPECT_EQ(b->num_calls(), 1);
  EXPECT_EQ(c->num_calls(), 1);
}

class RetryTest : public DispatcherFixture,
                  public ::testing::WithParamInterface<absl::StatusCode> {};

TEST_P(RetryTest, AnotherHolderTakesOver) {
  FakeExpertClient* a = Add("a", Everything());
  FakeExpertClient* b = Add("b", Everything());
  // Longer than the test may take: only b can answer.
  options_.min_backoff = options_.max_backoff = absl::Seconds(60);
  a->FailNext(absl::Status(GetParam(), "no"));
  auto dispatcher = Make();
  const DispatchProblem problem = Problem(5);
  const DispatchResult result =
      dispatcher->Dispatch(problem.Request(), Nothing);
  EXPECT_THAT(result.sequence_status, Each(IsOk()));
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
  EXPECT_EQ(a->num_calls(), 1);
  EXPECT_EQ(b->num_calls(), 1);
}

TEST_P(RetryTest, TheOnlyHolderIsAskedAgain) {
  FakeExpertClient* a = Add("a", Everything());
  for (int i = 0; i < 3; ++i) a->FailNext(absl::Status(GetParam(), "no"));
  auto dispatcher = Make();
  const DispatchProblem problem = Problem(5);
  const DispatchResult result =
      dispatcher->Dispatch(problem.Request(), Nothing);
  EXPECT_THAT(result.sequence_status, Each(IsOk()));
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
  EXPECT_EQ(a->num_calls(), 4);
  EXPECT_EQ(CounterValue("switchyard_moe_resent_pairs_total"), 3 * 5 * kPerRow);
}

INSTANTIATE_TEST_SUITE_P(Codes, RetryTest,
                         ::testing::Values(absl::StatusCode::kUnavailable,
                                           absl::StatusCode::kNotFound,
                                           absl::StatusCode::kResourceExhausted,
                                           absl::StatusCode::kCancelled),
                         [](const auto& info) {
                           return absl::StatusCodeToString(info.param);
                         });

TEST_F(ExpertDispatcherTest, AHolderThatDiesMidCallIsReplaced) {
  FakeExpertClient* a = Add("a", Everything());
  FakeExpertClient* b = Add("b", Everything());
  a->Hold();
  auto dispatcher = Make();
  const DispatchProblem problem = Problem(9, 2);
  const DispatchResult result = dispatcher->Dispatch(problem.Request(), [&] {
    a->Disconnect(absl::UnavailableError("killed"));
  });
  EXPECT_THAT(result.sequence_status, Each(IsOk()));
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
  EXPECT_EQ(b->num_calls(), 1);
}

TEST_F(ExpertDispatcherTest, PairsWaitForAHolderToComeBack) {
  FakeExpertClient* a = Add("a", Everything());
  a->Hold();
  // Only the news of the holdings can end the wait in time.
  options_.min_backoff = options_.max_backoff = absl::Seconds(60);
  auto dispatcher = Make();
  const DispatchProblem problem = Problem(9);
  std::thread worker;
  const DispatchResult result = dispatcher->Dispatch(problem.Request(), [&] {
    worker = StartThread("killer", [&] {
      ASSERT_TRUE(a->WaitForHeld(1, Soon()));
      a->Disconnect(absl::UnavailableError("killed"));
      a->Reconnect(Everything());
      ASSERT_TRUE(a->WaitForHeld(1, Soon()));
      a->ReleaseAll();
    });
  });
  worker.join();
  EXPECT_THAT(result.sequence_status, Each(IsOk()));
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
}

TEST_F(ExpertDispatcherTest, ASequenceWithoutHolderFailsAloneAtItsDeadline) {
  Add("a", Range(0, 8));
  FakeExpertClient* b = Add("worker-b:7001", Range(8, 16));
  auto dispatcher = Make();
  b->Disconnect(absl::UnavailableError("connection refused"));
  DispatchProblem problem = RowsFor({{1, 2}, {3, 9}, {10, 11}, {4, 5}});
  const absl::Time first = absl::Now() + absl::Milliseconds(30);
  problem.deadlines[1] = first + absl::Milliseconds(30);
  problem.deadlines[2] = first;
  const DispatchResult result =
      dispatcher->Dispatch(problem.Request(), Nothing);
  EXPECT_GE(absl::Now(), problem.deadlines[1]);
  EXPECT_LT(absl::Now(), problem.deadlines[1] + absl::Seconds(10));
  EXPECT_THAT(result.sequence_status[0], IsOk());
  EXPECT_THAT(result.sequence_status[3], IsOk());
  EXPECT_THAT(result.sequence_status[1],
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       AllOf(HasSubstr("layer 2"), HasSubstr("experts 9 "),
                             HasSubstr("worker-b:7001: connection refused"),
                             // Expert 3 was answered.
                             Not(HasSubstr("experts 3")))));
  EXPECT_THAT(result.sequence_status[2],
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("experts 10-11 ")));
  const std::vector<float> expected = problem.Expected();
  const std::vector<float> outputs = Outputs(result, kHidden);
  const auto same = [&](size_t row) {
    const size_t size = 2 * kHidden;
    return std::equal(expected.begin() + row * size,
                      expected.begin() + (row + 1) * size,
                      outputs.begin() + row * size);
  };
  EXPECT_TRUE(same(0));
  EXPECT_TRUE(same(3));
  EXPECT_EQ(CounterValue("switchyard_moe_failed_sequences_total"), 2);
}

TEST_F(ExpertDispatcherTest, ASlowHolderFailsOnlyTheSequenceThatCannotWait) {
  FakeExpertClient* a = Add("slow", Everything());
  a->Hold();
  auto dispatcher = Make();
  DispatchProblem problem = RowsFor({{1, 2}, {3, 4}});
  problem.deadlines[0] = absl::Now() + absl::Milliseconds(30);
  std::thread worker;
  const DispatchResult result = dispatcher->Dispatch(problem.Request(), [&] {
    worker = StartThread("slow", [&] {
      // The answer must come after the first sequence has been given up.
      const absl::Time deadline = absl::Now() + absl::Seconds(60);
      while (CounterValue("switchyard_moe_failed_sequences_total") < 1 &&
             absl::Now() < deadline) {
        std::this_thread::yield();
      }
      a->ReleaseAll();
    });
  });
  worker.join();
  EXPECT_THAT(result.sequence_status[0],
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       AllOf(HasSubstr("experts 1-2"),
                             HasSubstr("slow: has not answered"))));
  EXPECT_THAT(result.sequence_status[1], IsOk());
  EXPECT_EQ(a->num_calls(), 1);
  EXPECT_EQ(a->records()[0].deadline, problem.deadlines[1]);
}

TEST_F(ExpertDispatcherTest, NothingIsSentForASequenceThatIsTooLate) {
  FakeExpertClient* a = Add("a", Everything());
  auto dispatcher = Make();
  DispatchProblem problem = RowsFor({{1, 2}, {3, 4}});
  problem.deadlines[0] = absl::Now() - absl::Seconds(1);
  const DispatchResult result =
      dispatcher->Dispatch(problem.Request(), Nothing);
  EXPECT_THAT(result.sequence_status[0],
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(result.sequence_status[1], IsOk());
  ASSERT_EQ(a->num_calls(), 1);
  EXPECT_EQ(a->records()[0].num_rows, 1);
}

TEST_F(ExpertDispatcherTest, ALateReplyIsNotTakenForALaterOne) {
  FakeExpertClient* a = Add("a", Everything());
  a->Hold();
  auto dispatcher = Make();
  DispatchProblem first = RowsFor({{1, 2}});
  first.deadlines[0] = absl::Now() + absl::Milliseconds(20);
  EXPECT_THAT(dispatcher->Dispatch(first.Request(), Nothing).sequence_status[0],
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  DispatchProblem second = RowsFor({{1, 2}});
  for (float& x : second.rows) x += 1000;
  const DispatchResult result = dispatcher->Dispatch(
      second.Request(), [&] { a->ReleaseAll(); });  // the first's comes first
  EXPECT_EQ(Outputs(result, kHidden), second.Expected());
  EXPECT_EQ(CounterValue("switchyard_moe_late_replies_total"), 1);
}

TEST_F(ExpertDispatcherTest, AReplyMayComeWhenTheDispatcherIsGone) {
  FakeExpertClient* a = Add("a", Everything());
  a->Hold();
  auto dispatcher = Make();
  DispatchProblem problem = RowsFor({{1, 2}});
  problem.deadlines[0] = absl::Now() + absl::Milliseconds(20);
  dispatcher->Dispatch(problem.Request(), Nothing);
  dispatcher = nullptr;
  a->ReleaseAll();
  a->SetHoldings(model::ExpertSet());
  EXPECT_EQ(CounterValue("switchyard_moe_late_replies_total"), 1);
}

TEST_F(ExpertDispatcherTest, AHoldersRefusalOfACallFailsItsSequencesAtOnce) {
  FakeExpertClient* a = Add("worker-a", Range(0, 8));
  Add("b", Range(8, 16));
  a->FailNext(absl::InvalidArgumentError("row 9 of 3"));
  auto dispatcher = Make();
  const DispatchProblem problem = RowsFor({{1, 2}, {9, 10}});
  const DispatchResult result =
      dispatcher->Dispatch(problem.Request(), Nothing);
  EXPECT_THAT(result.sequence_status[0],
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("layer 2"), HasSubstr("worker-a"),
                             HasSubstr("row 9 of 3"))));
  EXPECT_THAT(result.sequence_status[1], IsOk());
}

TEST_F(ExpertDispatcherTest, LargeCallsAreCutAndFewAreInFlight) {
  FakeExpertClient* a = Add("a", Everything());
  a->set_max_call_rows(3);
  a->Hold();
  options_.max_calls_in_flight = 2;
  auto dispatcher = Make();
  const DispatchProblem problem = Problem(20);
  std::thread worker;
  std::atomic<bool> over = false;
  const DispatchResult result = dispatcher->Dispatch(problem.Request(), [&] {
    EXPECT_EQ(a->num_calls(), 2);
    worker = StartThread("releaser", [&] {
      while (!over && a->WaitForHeld(1, absl::Now() + absl::Seconds(1))) {
        a->ReleaseOne();
      }
    });
  });
  over = true;
  worker.join();
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
  EXPECT_GE(a->num_calls(), 20 * kPerRow / 3);
  for (const FakeExpertClient::Record& record : a->records()) {
    EXPECT_LE(record.num_rows, 3);
  }
}

TEST_F(ExpertDispatcherTest, CallsAreCutByTheBytesOfTheirOutputs) {
  FakeExpertClient* a = Add("a", Everything());
  options_.max_call_output_bytes = 10 * kHidden * sizeof(float);
  auto dispatcher = Make();
  const DispatchProblem problem = Problem(20);
  EXPECT_EQ(Outputs(dispatcher->Dispatch(problem.Request(), Nothing), kHidden),
            problem.Expected());
  for (const FakeExpertClient::Record& record : a->records()) {
    size_t outputs = 0;
    for (const experts::ExpertRun& run : record.runs) {
      outputs += run.rows.size();
    }
    EXPECT_LE(outputs, 10);
  }
}

TEST_F(ExpertDispatcherTest, WhatIsComputedInForwardIsCutByABoundOfItsOwn) {
  FakeExpertClient* local = Add("local", Everything());
  local->set_computes_in_forward(true);
  options_.max_call_output_bytes = 10 * kHidden * sizeof(float);
  const DispatchProblem problem = Problem(20);
  EXPECT_EQ(Outputs(Make()->Dispatch(problem.Request(), Nothing), kHidden),
            problem.Expected());
  EXPECT_EQ(local->num_calls(), 1);
  options_.max_own_call_output_bytes = 20 * kPerRow / 2 * kHidden * 4;
  EXPECT_EQ(Outputs(Make()->Dispatch(problem.Request(), Nothing), kHidden),
            problem.Expected());
  EXPECT_EQ(local->num_calls(), 1 + 2);
}

TEST_F(ExpertDispatcherTest, MissingExpertsAreThoseNobodyHolds) {
  FakeExpertClient* a = Add("a", Range(0, 5));
  Add("b", Range(3, 15));
  auto dispatcher = Make();
  EXPECT_EQ(dispatcher->MissingExperts(), Range(15, 16));
  a->Disconnect(absl::UnavailableError("gone"));
  model::ExpertSet missing = Range(0, 3);
  for (int l = 0; l < kLayers; ++l) missing.Insert(l, 15);
  EXPECT_EQ(dispatcher->MissingExperts(), missing);
}

// Random deals over random numbers of holders: always the same bits.
TEST_F(ExpertDispatcherTest, TheSameBitsFromAnyDeal) {
  const DispatchProblem problem = Problem(24, 5);
  for (const int num_holders : {1, 2, 3, 5, 8}) {
    for (int round = 0; round < 10; ++round) {
      options_.clients.clear();
      std::vector<model::ExpertSet> deal(num_holders,
                                         model::ExpertSet(kLayers, kExperts));
      for (int l = 0; l < kLayers; ++l) {
        for (int e = 0; e < kExperts; ++e) {
          deal[random_() % num_holders].Insert(l, e);
        }
      }
      for (int i = 0; i < num_holders; ++i) {
        FakeExpertClient* client = Add(std::to_string(i), deal[i]);
        client->set_computes_in_forward(random_() % 4 == 0);
      }
      auto dispatcher = Make();
      const DispatchResult result =
          dispatcher->Dispatch(problem.Request(), Nothing);
      EXPECT_THAT(result.sequence_status, Each(IsOk()));
      ASSERT_EQ(Outputs(result, kHidden), problem.Expected())
          << num_holders << " holders, round " << round;
    }
  }
}

// Holders that fail, hang, die, return with other experts, and answer late,
// from another thread, while dispatches run: every result is the right one,
// each pair's output is used once (the dispatcher checks that), and all end.
TEST_F(ExpertDispatcherTest, AnyFailuresGiveTheSameOutputs) {
  constexpr int kHolders = 4;
  options_.min_backoff = absl::Microseconds(50);
  options_.max_backoff = absl::Milliseconds(2);
  for (int i = 0; i < kHolders; ++i) {
    FakeExpertClient* client =
        Add(std::to_string(i), i == 0 ? Everything() : Range(i * 3, 16));
    client->set_max_call_rows(1 + static_cast<int64_t>(random_() % 7));
    client->set_computes_in_forward(i == 3);
  }
  auto dispatcher = Make();
  std::atomic<bool> over = false;
  std::thread nemesis = StartThread("nemesis", [&] {
    std::mt19937 random(11);
    const absl::Status codes[] = {
        absl::UnavailableError("nemesis"), absl::NotFoundError("nemesis"),
        absl::ResourceExhaustedError("nemesis"), absl::OkStatus()};
    while (!over) {
      FakeExpertClient& client = *clients_[random() % kHolders];
      switch (random() % 8) {
        case 0:
          client.FailNext(codes[random() % 3]);
          break;
        case 1:
          client.Hold();
          break;
        case 2:
          client.ReleaseOne(codes[random() % 4]);
          break;
        case 3:
          client.Disconnect(absl::UnavailableError("nemesis"));
          break;
        case 4:
        case 5: {
          const int begin = static_cast<int>(random() % 16);
          client.Reconnect(random() % 2 == 0 ? Everything() : Range(begin, 16));
          break;
        }
        default:
          client.ReleaseAll(codes[random() % 4]);
      }
    }
    for (const auto& client : clients_) {
      client->Reconnect(Everything());
      client->ReleaseAll();
    }
  });
  // Until the nemesis has had its share, too.
  const absl::Time deadline = Soon();
  int round = 0;
  for (;
       round < 200 || CounterValue("switchyard_moe_resent_pairs_total") < 1000;
       ++round) {
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
