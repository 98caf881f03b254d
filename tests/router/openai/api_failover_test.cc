// Workers that die, forget a request, are full or talk nonsense.
//
// The whole router but its workers (api_test_util.h).

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/openai/cache_scope.h"
#include "router/server.h"
#include "tests/router/openai/api_test_util.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::ScriptedAttentionClient;
using ::testing::HasSubstr;
using State = AttentionWorkerInfo::State;

TEST_F(ApiTest, DeadWorkersSequenceGoesOnAtAnother) {
  Start({}, /*num_workers=*/2);
  const std::vector<int32_t> answer = Ids("Mexico City is large");
  auto client =
      OpenStream(kChat, Hi(R"("stream":true,"seed":11,"cache_salt":"s")"));
  // Either may be chosen first.
  std::shared_ptr<ScriptedAttentionClient::Call> first;
  size_t at = 0;
  const absl::Time deadline = Soon();
  while (first == nullptr && absl::Now() < deadline) {
    at = 1 - at;
    first = workers_[at]->WaitForCall(0, absl::Now() + absl::Milliseconds(10));
  }
  ASSERT_NE(first, nullptr);
  workers_[1 - at]->Answer(answer);
  first->Token(answer[0]);
  first->Token(answer[1]);
  workers_[at]->SetState(State::kUnreachable);
  first->Done(absl::UnavailableError("connection reset"));
  const auto reply = client->ReadReply();
  EXPECT_EQ(StreamedContent(Events(reply.body)), "Mexico City is large");
  const auto second = workers_[1 - at]->WaitForCall(0, Soon());
  EXPECT_THAT(second->request().resumed_output_ids,
              ::testing::ElementsAre(answer[0], answer[1]));
  EXPECT_EQ(second->request().sampling.seed, 11u);
  EXPECT_EQ(second->request().cache_scope, CacheScope("s", ""));
  EXPECT_EQ(first->request().cache_scope, CacheScope("s", ""));
  EXPECT_EQ(second->request().max_tokens, first->request().max_tokens);
  EXPECT_NE(second->request().id, first->request().id);
  EXPECT_EQ(Metric("switchyard_router_replays_total"), "1");
}

TEST_F(ApiTest, OnlyWorkersSequenceWaitsUntilItIsBackOrTheTimeIsOver) {
  RouterServer::Options options;
  options.failover_timeout = absl::Seconds(5);
  Start(std::move(options));
  const std::vector<int32_t> answer = Ids("Mexico City");
  auto client = OpenStream(kChat, Hi());
  auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  call->Token(answer[0]);
  workers_[0]->SetState(State::kUnreachable);
  call->Done(absl::UnavailableError("connection reset"));
  ASSERT_TRUE(timers_.WaitForTimers(kServerTimers + 2,
                                    Soon()));  // the deadline's and the retry
  workers_[0]->SetState(State::kReady);
  workers_[0]->Answer(answer);
  timers_.Advance(absl::Seconds(1));
  EXPECT_THAT(client->ReadReply().body,
              HasSubstr(R"("content":"Mexico City")"));

  // And once more, but it does not come back.
  workers_[0]->FailAll(absl::UnavailableError("connection reset"));
  const size_t before = workers_[0]->num_calls();
  client = OpenStream(kChat, Hi());
  ASSERT_NE(workers_[0]->WaitForCall(before, Soon()), nullptr);
  std::atomic<bool> answered = false;
  std::thread patience([&] {
    while (!answered) {
      if (timers_.WaitForTimers(kServerTimers + 2,
                                absl::Now() + absl::Milliseconds(10))) {
        timers_.Advance(absl::Seconds(1));
      }
    }
  });
  const auto reply = client->ReadReply();
  answered = true;
  patience.join();
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, HasSubstr("connection reset"));
}

// A stream that one of two workers has begun to answer.
class MovingTest : public ApiTest {
 protected:
  void StartOne() {
    Start({}, /*num_workers=*/2);
    answer_ = Ids("Mexico City is large");
    client_ = OpenStream(kChat, Hi(R"("stream":true)"));
    const absl::Time deadline = Soon();
    while (first_ == nullptr && absl::Now() < deadline) {
      at_ = 1 - at_;
      first_ =
          workers_[at_]->WaitForCall(0, absl::Now() + absl::Milliseconds(10));
    }
    ASSERT_NE(first_, nullptr);
    first_->Token(answer_[0]);
  }
  ScriptedAttentionClient& first_worker() { return *workers_[at_]; }
  ScriptedAttentionClient& other_worker() { return *workers_[1 - at_]; }
  void FallSilent() {
    AttentionWorkerInfo info = first_worker().info();
    info.silent = true;
    first_worker().SetInfo(info);
    first_->AdviseMove();
  }
  std::string Rest() {
    return StreamedContent(Events(client_->ReadReply().body));
  }

  std::vector<int32_t> answer_;
  std::unique_ptr<testing::RawHttpConnection> client_;
  std::shared_ptr<ScriptedAttentionClient::Call> first_;
  size_t at_ = 0;
};

TEST_F(MovingTest, SilentWorkersSequenceGoesOnAtAnother) {
  StartOne();
  FallSilent();
  const auto second = other_worker().WaitForCall(0, Soon());
  ASSERT_NE(second, nullptr);
  EXPECT_THAT(second->request().resumed_output_ids,
              ::testing::ElementsAre(answer_[0]));
  EXPECT_FALSE(first_->cancelled());
  second->Token(answer_[1]);
  EXPECT_TRUE(first_->WaitUntilCancelled(Soon()));
  first_->TokenAt(answer_[1], 1);  // too late
  for (size_t i = 2; i < answer_.size(); ++i) second->Token(answer_[i]);
  second->Done(absl::OkStatus());
  EXPECT_EQ(Rest(), "Mexico City is large");
}

TEST_F(MovingTest, WorkerThatWakesUpFirstKeepsItsSequence) {
  StartOne();
  FallSilent();
  const auto second = other_worker().WaitForCall(0, Soon());
  ASSERT_NE(second, nullptr);
  first_->Token(answer_[1]);
  EXPECT_TRUE(second->WaitUntilCancelled(Soon()));
  for (size_t i = 2; i < answer_.size(); ++i) first_->Token(answer_[i]);
  first_->Done(absl::OkStatus());
  EXPECT_EQ(Rest(), "Mexico City is large");
  EXPECT_EQ(other_worker().num_calls(), 1u);
}

TEST_F(MovingTest, TheLossOfOneOfTwoAttemptsCostsNothing) {
  StartOne();
  FallSilent();
  const auto second = other_worker().WaitForCall(0, Soon());
  ASSERT_NE(second, nullptr);
  first_->Done(absl::UnavailableError("connection reset"));
  for (size_t i = 1; i < answer_.size(); ++i) second->Token(answer_[i]);
  second->Done(absl::OkStatus());
  EXPECT_EQ(Rest(), "Mexico City is large");
  EXPECT_EQ(first_worker().num_calls(), 1u);
}

TEST_F(MovingTest, StaleAdviceMovesNothing) {
  StartOne();
  first_->AdviseMove();
  for (size_t i = 1; i < answer_.size(); ++i) first_->Token(answer_[i]);
  first_->Done(absl::OkStatus());
  EXPECT_EQ(Rest(), "Mexico City is large");
  EXPECT_EQ(other_worker().num_calls(), 0u);
}

TEST_F(MovingTest, DrainingWorkerIsLeftAsSoonAsAnotherIsReady) {
  StartOne();
  other_worker().SetState(State::kLoading);
  first_worker().SetState(State::kDraining);
  first_->AdviseMove();
  first_->Token(answer_[1]);  // still its own
  other_worker().SetState(State::kReady);
  other_worker().Answer(answer_);
  first_->AdviseMove();
  EXPECT_TRUE(first_->WaitUntilCancelled(Soon()));
  EXPECT_EQ(Rest(), "Mexico City is large");
  EXPECT_EQ(other_worker().num_calls(), 1u);
}

// The first worker drains, and its state is worth moving.
class HandOverTest : public MovingTest {
 protected:
  void DrainOne() {
    StartOne();
    AttentionWorkerInfo info = first_worker().info();
    info.state = State::kDraining;
    info.state_fixed_bytes = 1000;
    info.state_token_bytes = 10;
    first_worker().SetInfo(info);
    first_worker().LetHandOver();
    // What reading costs: more than a state of so few bytes.
    first_->AdviseMove();
    order_ = first_worker().WaitForHandOver(Soon());
    ASSERT_TRUE(order_);
    EXPECT_EQ(order_->request_id, first_->request().id);
    EXPECT_EQ(order_->to, &other_worker());
    EXPECT_EQ(other_worker().num_calls(), 0u);
  }
  absl::optional<ScriptedAttentionClient::HandOverOrder> order_;
};

TEST_F(HandOverTest, DrainingWorkersSequenceGoesOnFromItsState) {
  DrainOne();
  // Until its turn, and perhaps behind the end of the move.
  first_->Token(answer_[1]);
  order_->done(HandedOver{.num_tokens = 5, .bytes = 1050});
  first_->Token(answer_[2]);
  first_->Done(absl::UnavailableError("handed over"));
  const auto second = other_worker().WaitForCall(0, Soon());
  ASSERT_NE(second, nullptr);
  EXPECT_THAT(second->request().resumed_output_ids,
              ::testing::ElementsAre(answer_[0], answer_[1], answer_[2]));
  for (size_t i = 3; i < answer_.size(); ++i) second->Token(answer_[i]);
  second->Done(absl::OkStatus());
  EXPECT_EQ(Rest(), "Mexico City is large");
  EXPECT_EQ(Metric("switchyard_router_states_moved_total"), "1");
  EXPECT_EQ(Metric("switchyard_router_state_bytes_moved_total"), "1050");
  EXPECT_EQ(Metric("switchyard_router_replays_total"), "0");
}

TEST_F(HandOverTest, TheEndOfTheStreamMayComeBeforeThatOfTheMove) {
  DrainOne();
  first_->Done(absl::UnavailableError("handed over"));
  other_worker().Answer(answer_);
  order_->done(HandedOver{.num_tokens = 5, .bytes = 1050});
  EXPECT_EQ(Rest(), "Mexico City is large");
  EXPECT_EQ(other_worker().num_calls(), 1u);
}

TEST_F(HandOverTest, AStateThatCannotBeMovedIsReadAgain) {
  DrainOne();
  other_worker().Answer(answer_);
  order_->done(absl::ResourceExhaustedError("no room"));
  EXPECT_TRUE(first_->WaitUntilCancelled(Soon()));
  EXPECT_EQ(Rest(), "Mexico City is large");
  EXPECT_EQ(Metric("switchyard_router_states_moved_total"), "0");
  EXPECT_EQ(Metric("switchyard_router_replays_total"), "1");
}

TEST_F(HandOverTest, ASequenceMayEndBeforeItsTurn) {
  DrainOne();
  for (size_t i = 1; i < answer_.size(); ++i) first_->Token(answer_[i]);
  first_->Done(absl::OkStatus());
  EXPECT_EQ(Rest(), "Mexico City is large");
  order_->done(absl::NotFoundError("no such request"));
  EXPECT_EQ(other_worker().num_calls(), 0u);
}

TEST_F(MovingTest, AFullWorkerDoesNotRefuseWhatHasToMove) {
  StartOne();
  other_worker().FailAll(absl::ResourceExhaustedError("full"));
  first_worker().SetState(State::kUnreachable);
  first_->Done(absl::UnavailableError("connection reset"));
  // The retry's, beside the keep-alive's and the deadline's.
  ASSERT_TRUE(timers_.WaitForTimers(kServerTimers + 3, Soon()));
  other_worker().FailAll(absl::OkStatus());
  other_worker().Answer(answer_);
  timers_.Advance(absl::Seconds(1));
  EXPECT_EQ(Rest(), "Mexico City is large");
}

TEST_F(ApiTest, CachedTokensAreThoseOfTheFirstAttempt) {
  Start({}, /*num_workers=*/1);
  const std::vector<int32_t> answer = Ids("Hi you");
  auto client = OpenStream(kChat, Hi());
  auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  call->set_cached_prompt_tokens(3);
  call->Token(answer[0]);
  call->Done(absl::UnavailableError("connection reset"));
  ASSERT_TRUE(timers_.WaitForTimers(kServerTimers + 2, Soon()));
  timers_.Advance(absl::Seconds(1));
  call = workers_[0]->WaitForCall(1, Soon());
  ASSERT_NE(call, nullptr);
  call->set_cached_prompt_tokens(9);
  for (size_t i = 1; i < answer.size(); ++i) call->Token(answer[i]);
  call->Done(absl::OkStatus());
  const Json usage = (*ParseJson(client->ReadReply().body))["usage"];
  EXPECT_EQ(usage["prompt_tokens_details"]["cached_tokens"], 3);
}

TEST_F(ApiTest, WorkerThatDiesBehindItsLastTokenCostsNothing) {
  Start();
  auto client = OpenStream(kChat, Hi());
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  for (const int32_t id : Ids("Hi")) call->Token(id);
  call->Done(absl::UnavailableError("connection reset"));
  const Json choice = (*ParseJson(client->ReadReply().body))["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "Hi");
  EXPECT_EQ(choice["finish_reason"], "stop");
}

TEST_F(ApiTest, TokenOfAnotherPositionEndsTheRequest) {
  Start();
  auto client = OpenStream(kChat, Hi());
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  call->TokenAt(5, 99'999);
  const auto reply = client->ReadReply();
  EXPECT_EQ(reply.status, 502);
  EXPECT_THAT(reply.body, HasSubstr("99999"));
  EXPECT_TRUE(call->WaitUntilCancelled(Soon()));
}

TEST_F(ApiTest, FullWorkerIsNotTheLastWord) {
  Start({}, /*num_workers=*/2);
  workers_[0]->FailAll(absl::ResourceExhaustedError("full"));
  workers_[1]->Answer(Ids("ok"));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(PostJson(kChat, Hi())["choices"][0]["message"]["content"], "ok");
  }
  EXPECT_GE(workers_[0]->num_calls(), 1u);
}

TEST_F(ApiTest, DeadlineEndsARequestThatItsWorkerForgot) {
  Start();
  auto client = OpenStream(kChat, Hi(R"("timeout":3)"));
  const auto call = workers_[0]->WaitForCall(0, Soon());
  ASSERT_NE(call, nullptr);
  EXPECT_EQ(call->request().deadline,
            absl::FromUnixSeconds(1735689600) + absl::Seconds(3));
  ASSERT_TRUE(timers_.WaitForTimers(kServerTimers + 1, Soon()));
  timers_.Advance(absl::Seconds(6));
  EXPECT_EQ(client->ReadReply().status, 504);
  EXPECT_TRUE(call->WaitUntilCancelled(Soon()));
}

}  // namespace
}  // namespace switchyard::router
