#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/routing/least_loaded.h"
#include "router/routing/worker_pool.h"
#include "tests/testing/matchers.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::ScriptedAttentionClient;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

AttentionWorkerInfo Info(AttentionWorkerInfo::State state, int64_t running = 0,
                         int64_t waiting = 0) {
  AttentionWorkerInfo info;
  info.state = state;
  info.model_fingerprint = "abc";
  info.running_requests = running;
  info.waiting_requests = waiting;
  return info;
}
constexpr auto kReady = AttentionWorkerInfo::State::kReady;

TEST(LeastLoadedTest, TakesTheLeastAndTurnsAmongEquals) {
  const LeastLoaded policy;
  const std::vector<RoutingCandidate> candidates = {
      {"a", 5}, {"b", 2}, {"c", 3}, {"d", 2}};
  EXPECT_EQ(policy.Choose(candidates, 0), 1);
  EXPECT_EQ(policy.Choose(candidates, 1), 3);
  EXPECT_EQ(policy.Choose(candidates, 2), 1);
  EXPECT_EQ(policy.Choose({{"a", 7}}, 12345), 0);
}

class WorkerPoolTest : public ::testing::Test {
 protected:
  WorkerPoolTest() {
    a_.SetInfo(Info(kReady));
    b_.SetInfo(Info(kReady));
  }

  std::string ChooseName(absl::Span<const std::string> exclude = {}) {
    absl::StatusOr<WorkerLease> lease = pool_.Choose(exclude);
    return lease.ok() ? lease->worker()->name() : lease.status().ToString();
  }

  ScriptedAttentionClient a_{"a:1"};
  ScriptedAttentionClient b_{"b:1"};
  LeastLoaded policy_;
  WorkerPool pool_{{&a_, &b_}, &policy_, {}};
};

TEST_F(WorkerPoolTest, ChoosesTheLessLoaded) {
  a_.SetInfo(Info(kReady, 3, 2));
  b_.SetInfo(Info(kReady, 4, 0));
  EXPECT_EQ(ChooseName(), "b:1");
  b_.SetInfo(Info(kReady, 4, 2));
  EXPECT_EQ(ChooseName(), "a:1");
}

TEST_F(WorkerPoolTest, LeasesCountUntilTheyEnd) {
  // What the workers said is stale: this router's own requests spread anyway.
  std::vector<WorkerLease> leases;
  for (int i = 0; i < 10; ++i) {
    auto lease = pool_.Choose();
    ASSERT_THAT(lease, IsOk());
    leases.push_back(*std::move(lease));
  }
  EXPECT_EQ(pool_.Describe()[0].in_flight, 5);
  EXPECT_EQ(pool_.Describe()[1].in_flight, 5);
  leases.erase(leases.begin());
  leases.clear();
  EXPECT_EQ(pool_.Describe()[0].in_flight, 0);
  EXPECT_EQ(pool_.Describe()[1].in_flight, 0);
}

TEST_F(WorkerPoolTest, AMovedLeaseCountsOnce) {
  auto first = pool_.Choose();
  auto second = pool_.Choose();
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  *first = *std::move(second);  // the first one ends
  EXPECT_EQ(pool_.Describe()[0].in_flight + pool_.Describe()[1].in_flight, 1);
}

TEST_F(WorkerPoolTest, LeavesOutThoseThatFailedTheRequest) {
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ChooseName({"a:1"}), "b:1");
  EXPECT_THAT(pool_.Choose({"a:1", "b:1"}),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("a:1: failed this request already")));
}

TEST_F(WorkerPoolTest, SaysOfEveryWorkerWhyNot) {
  AttentionWorkerInfo loading = Info(AttentionWorkerInfo::State::kLoading);
  loading.loading_progress = 0.427;
  a_.SetInfo(loading);
  AttentionWorkerInfo gone = Info(AttentionWorkerInfo::State::kUnreachable);
  gone.message = "connection refused";
  b_.SetInfo(gone);
  EXPECT_THAT(pool_.Choose(),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("a:1: loading, 42%"),
                             HasSubstr("b:1: unreachable (connection "
                                       "refused)"))));
  a_.SetInfo(Info(AttentionWorkerInfo::State::kDraining));
  EXPECT_THAT(pool_.Choose(), StatusIs(absl::StatusCode::kUnavailable,
                                       HasSubstr("a:1: draining")));
}

TEST_F(WorkerPoolTest, AWorkerThatWaitsForExpertsIsTheLastResort) {
  AttentionWorkerInfo waiting =
      Info(AttentionWorkerInfo::State::kWaitingExperts);
  waiting.message = "layer 3";
  a_.SetInfo(waiting);
  b_.SetInfo(Info(kReady, 100, 100));
  EXPECT_EQ(ChooseName(), "b:1");
  EXPECT_EQ(pool_.Describe()[0].not_ready, "waiting for experts (layer 3)");
  EXPECT_EQ(pool_.Describe()[1].not_ready, "");
  b_.SetInfo(Info(AttentionWorkerInfo::State::kUnreachable));
  EXPECT_EQ(ChooseName(), "a:1");
  EXPECT_THAT(pool_.Choose({"a:1"}),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("a:1: waiting for experts (layer 3)")));
}

TEST_F(WorkerPoolTest, ASilentWorkerIsTheLastResort) {
  AttentionWorkerInfo silent = Info(kReady);
  silent.silent = true;
  a_.SetInfo(silent);
  b_.SetInfo(Info(kReady, /*running=*/50));
  EXPECT_EQ(ChooseName(), "b:1");
  EXPECT_EQ(pool_.Describe()[0].not_ready, "does not answer");
  b_.SetInfo(Info(AttentionWorkerInfo::State::kUnreachable));
  EXPECT_EQ(ChooseName(), "a:1");
}

TEST_F(WorkerPoolTest, AnotherModelIsNeverChosen) {
  EXPECT_EQ(ChooseName({"b:1"}), "a:1");  // the first one seen ready
  AttentionWorkerInfo other = Info(kReady);
  other.model_fingerprint = "xyz";
  b_.SetInfo(other);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ChooseName(), "a:1");
  EXPECT_THAT(pool_.Describe()[1].not_ready,
              AllOf(HasSubstr("xyz"), HasSubstr("that of a:1 is abc")));
  // Nor when it is the only one, nor when it waits for experts.
  a_.SetInfo(Info(AttentionWorkerInfo::State::kUnreachable));
  EXPECT_THAT(pool_.Choose(), StatusIs(absl::StatusCode::kUnavailable,
                                       HasSubstr("another model")));
  other.state = AttentionWorkerInfo::State::kWaitingExperts;
  b_.SetInfo(other);
  EXPECT_THAT(pool_.Choose(), StatusIs(absl::StatusCode::kUnavailable,
                                       HasSubstr("another model")));
}

TEST_F(WorkerPoolTest, AWorkerThatLoadsDecidesNothing) {
  AttentionWorkerInfo loading = Info(AttentionWorkerInfo::State::kLoading);
  loading.model_fingerprint = "";
  a_.SetInfo(loading);
  EXPECT_EQ(ChooseName(), "b:1");
  a_.SetInfo(Info(kReady));
  EXPECT_THAT(pool_.Describe()[0].not_ready, IsEmpty());
}

TEST(WorkerPoolMembersTest, ComeAndGo) {
  LeastLoaded policy;
  WorkerPool pool({}, &policy, {});
  EXPECT_THAT(pool.Choose(), StatusIs(absl::StatusCode::kUnavailable,
                                      HasSubstr("has joined")));
  auto worker = std::make_shared<ScriptedAttentionClient>("a:1");
  worker->SetInfo(Info(kReady));
  const std::weak_ptr<ScriptedAttentionClient> watched = worker;
  EXPECT_TRUE(pool.Add(worker));
  EXPECT_FALSE(pool.Add(std::make_shared<ScriptedAttentionClient>("a:1")));
  worker = nullptr;
  {
    const absl::StatusOr<WorkerLease> lease = pool.Choose();
    ASSERT_THAT(lease, IsOk());
    EXPECT_EQ(lease->worker()->name(), "a:1");
    EXPECT_FALSE(pool.Remove("b:1"));
    EXPECT_TRUE(pool.Remove("a:1"));
    EXPECT_FALSE(pool.Remove("a:1"));
    EXPECT_THAT(pool.Describe(), IsEmpty());
    // Its request goes on, and keeps it.
    EXPECT_THAT(pool.TakeRemoved(), IsEmpty());
    EXPECT_FALSE(watched.expired());
    // Another one may come to its address meanwhile.
    auto next = std::make_shared<ScriptedAttentionClient>("a:1");
    next->SetInfo(Info(kReady));
    EXPECT_TRUE(pool.Add(next));
    const absl::StatusOr<WorkerLease> other = pool.Choose();
    ASSERT_THAT(other, IsOk());
    EXPECT_EQ(other->worker(), next.get());
  }
  EXPECT_EQ(pool.TakeRemoved().size(), 1);
  EXPECT_TRUE(watched.expired());
}

// A pool whose time the test moves.
class WorkerGraceTest : public ::testing::Test {
 protected:
  WorkerPool::Options Options() {
    return {.worker_grace = absl::Seconds(5), .now = [this] { return now_; }};
  }
  static AttentionWorkerInfo Gone() {
    return Info(AttentionWorkerInfo::State::kUnreachable);
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  LeastLoaded policy_;
  ScriptedAttentionClient a_{"a:1"};
};

TEST_F(WorkerGraceTest, CountsFromTheLastMomentAtWhichOneCouldBeChosen) {
  WorkerPool pool({&a_}, &policy_, Options());
  a_.SetInfo(Gone());
  EXPECT_EQ(pool.ExpectedBackBy(), absl::InfinitePast());  // nobody ever was
  a_.SetInfo(Info(AttentionWorkerInfo::State::kLoading));
  EXPECT_EQ(pool.ExpectedBackBy(), absl::InfinitePast());
  for (const auto state :
       {kReady, AttentionWorkerInfo::State::kWaitingExperts}) {
    a_.SetInfo(Info(state));
    now_ += absl::Hours(1);
    pool.Describe();
    const absl::Time last = now_;
    now_ += absl::Seconds(1);
    a_.SetInfo(Gone());
    EXPECT_EQ(pool.ExpectedBackBy(), last + absl::Seconds(5));
    now_ += absl::Hours(1);
    EXPECT_EQ(pool.ExpectedBackBy(), last + absl::Seconds(5));
  }
}

TEST_F(WorkerGraceTest, NobodyIsExpectedBackWithoutGrace) {
  WorkerPool::Options options = Options();
  options.worker_grace = absl::ZeroDuration();
  WorkerPool pool({&a_}, &policy_, std::move(options));
  a_.SetInfo(Info(kReady));
  EXPECT_EQ(pool.ExpectedBackBy(), absl::InfinitePast());
}

TEST_F(WorkerGraceTest, AWorkerThatWasRemovedIsExpectedBack) {
  WorkerPool pool({}, &policy_, Options());
  auto worker = std::make_shared<ScriptedAttentionClient>("b:1");
  worker->SetInfo(Info(kReady));
  ASSERT_TRUE(pool.Add(std::move(worker)));
  ASSERT_TRUE(pool.Remove("b:1"));
  EXPECT_EQ(pool.ExpectedBackBy(), now_ + absl::Seconds(5));
}

TEST_F(WorkerGraceTest, AWorkerOfAnotherModelIsNotWaitedFor) {
  ScriptedAttentionClient other("b:1");
  WorkerPool pool({&a_, &other}, &policy_, Options());
  a_.SetInfo(Info(kReady));
  AttentionWorkerInfo info = Info(kReady);
  info.model_fingerprint = "xyz";
  other.SetInfo(info);
  const absl::Time end = pool.ExpectedBackBy();
  EXPECT_EQ(end, now_ + absl::Seconds(5));
  a_.SetInfo(Gone());
  now_ += absl::Seconds(1);
  EXPECT_EQ(pool.ExpectedBackBy(), end);
}

TEST_F(WorkerGraceTest, WhatWasServedIsRemembered) {
  ScriptedAttentionClient b("b:1");
  WorkerPool pool({&a_, &b}, &policy_, Options());
  a_.SetInfo(Gone());
  b.SetInfo(Gone());
  EXPECT_EQ(pool.served_model().fingerprint, "");
  EXPECT_EQ(pool.served_model().max_model_len, 0);
  AttentionWorkerInfo info = Info(kReady);
  info.max_model_len = 300;
  a_.SetInfo(info);
  info.max_model_len = 200;
  b.SetInfo(info);
  EXPECT_EQ(pool.served_model().max_model_len, 200);
  b.SetInfo(Gone());
  EXPECT_EQ(pool.served_model().max_model_len, 300);
  a_.SetInfo(Gone());
  EXPECT_EQ(pool.served_model().fingerprint, "abc");
  EXPECT_EQ(pool.served_model().max_model_len, 300);
}

TEST_F(WorkerPoolTest, AsksTheWorkerOfThatNameNow) {
  EXPECT_TRUE(pool_.AskNow("b:1"));
  EXPECT_FALSE(pool_.AskNow("c:1"));
  EXPECT_EQ(a_.num_asks(), 0);
  EXPECT_EQ(b_.num_asks(), 1);
}

TEST_F(WorkerPoolTest, ConfiguredWorkersStay) {
  EXPECT_FALSE(pool_.Remove("a:1"));
  EXPECT_EQ(pool_.Describe().size(), 2);
}

}  // namespace
}  // namespace switchyard::router
